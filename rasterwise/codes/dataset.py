"""Datasets of codes: images encoded once by a tokenizer, kept on disk with the tokenizer that made them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from rasterwise.codes.shards import (
    CODES_NAME,
    SHARD_SUFFIX,
    SPLITS,
    described,
    mapped_table,
    opened_splits,
    write_table,
)
from rasterwise.configuration import CountOrZero, configuration
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.indexed import IndexedSplit
from rasterwise.data.reading import digest
from rasterwise.data.splits import Batch, Captions, Fetched
from rasterwise.errors import InputError
from rasterwise.files import from_json, member, read_json
from rasterwise.models.pretrained import CONFIG_NAME
from rasterwise.symbols.grid import Grid

if TYPE_CHECKING:
    import pyarrow


@configuration()
class CodesKey:
    """What a code dataset was made from, and what it holds.

    Attributes:
        tokenizer: Fingerprint of the tokenizer.
        train: Fingerprint of the images that became the train split.
        test: The same for the test split.
        grid: The grid of each item.
        classes: Names of the classes.
        copies: Augmented copies of each training image, encoded in addition to the image itself.
        augmentation: How they differ from it.
        captions: Whether each item has its image's captions.
    """

    what: ClassVar[str] = "images"

    tokenizer: str
    train: str
    test: str
    grid: Grid
    classes: tuple[str, ...]
    copies: CountOrZero
    augmentation: Augmentation
    captions: bool = False


@dataclass(frozen=True)
class CodeData:
    """An opened code dataset: ``train`` and ``test`` give batches of int64 symbols.

    Attributes:
        folder: Where it is; ``folder/tokenizer`` is the tokenizer that made it.
        key: What it was made from.
        train: The split to train on.
        test: The split to evaluate on.
    """

    folder: Path
    key: CodesKey
    train: IndexedSplit
    test: IndexedSplit


class CodeItems:
    """Codes in the shards of a folder, mapped into memory: only those that are drawn are read.

    A shard is an Arrow file of ``codes``, int32 lists in raster order, and perhaps ``label`` and ``captions``, lists
    of UTF-8 strings; ``datasets.Dataset.from_file`` opens it too. ``open_codes`` checks the bytes of every shard,
    once. Nothing is checked again here, so a worker that opens the same shards reads only what it needs.

    Args:
        folder: Of the split.
        key: What the codes are.

    Raises:
        ValueError: A file is no shard, or another shard than its name says. pyarrow raises errors of its own.
    """

    def __init__(self, folder: Path, key: CodesKey) -> None:
        self.folder, self.key = folder, key
        self._shards = [_Shard.mapped(path, key) for path in sorted(folder.glob("*" + SHARD_SUFFIX))]
        self._ends = np.cumsum(self.shard_lengths, dtype=np.int64)

    @property
    def shard_lengths(self) -> list[int]:
        """Grids in each shard."""
        return [len(shard.codes) for shard in self._shards]

    def __reduce__(self) -> tuple[Any, ...]:  # a worker maps the files itself
        return CodeItems, (self.folder, self.key)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def fetch(self, indices: list[int], *, replace: bool) -> Fetched:
        wanted = np.asarray(indices, dtype=np.int64)
        shards = np.searchsorted(self._ends, wanted, side="right")
        codes = np.empty((len(wanted), self.key.grid.size), dtype=np.int64)
        labels = np.empty(len(wanted), dtype=np.int64)
        captions: list[tuple[str, ...]] = [()] * len(wanted)
        for number in np.unique(shards):
            shard, here = self._shards[number], (shards == number).nonzero()[0]
            rows = wanted[here] - (self._ends[number] - len(shard.codes))
            codes[here] = shard.codes[rows]
            if self.key.classes:
                labels[here] = shard.labels[rows]
            if shard.captions is not None:
                for position, row in zip(here, rows, strict=True):
                    captions[position] = tuple(shard.captions[int(row)].as_py())
        batch = Batch(
            torch.from_numpy(codes).view(-1, *self.key.grid.shape),
            torch.from_numpy(labels) if self.key.classes else None,
            None if replace else torch.from_numpy(wanted),
            tuple(captions) if self.key.captions else None,
        )
        return Fetched(batch, {})


@dataclass(frozen=True)
class _Shard:
    """A shard, mapped into memory.

    Attributes:
        codes: int32 ``(n, grid.size)``.
        labels: int64 ``(n,)``; empty where the key has no classes.
        captions: Lists of strings; None where the key has none.
    """

    codes: np.ndarray
    labels: np.ndarray
    captions: pyarrow.Array | None

    @classmethod
    def mapped(cls, path: Path, key: CodesKey) -> _Shard:
        import pyarrow

        columns = {"codes": pyarrow.list_(pyarrow.int32(), key.grid.size)}
        if key.classes:
            columns["label"] = pyarrow.int64()
        if key.captions:
            columns["captions"] = pyarrow.list_(pyarrow.string())
        table = mapped_table(path, columns)
        codes = table["codes"].combine_chunks().flatten().to_numpy()
        return cls(
            codes.reshape(len(table), key.grid.size),
            table["label"].combine_chunks().to_numpy() if key.classes else np.empty(0, dtype=np.int64),
            table["captions"].combine_chunks() if key.captions else None,
        )


def write_shard(
    path: Path, codes: np.ndarray, labels: np.ndarray | None, captions: Captions | None, key: CodesKey
) -> None:
    """Write a shard; the file is whole or absent.

    Args:
        path: The shard's, in the folder of its split.
        codes: int32 ``(n, grid.size)``.
        labels: int64 ``(n,)``, where the key has classes.
        captions: All that each item has, where the key has captions.
        key: What the codes are.
    """
    import datasets
    import pyarrow

    features: dict[str, Any] = {"codes": datasets.List(datasets.Value("int32"), length=key.grid.size)}
    columns = [pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(codes.reshape(-1)), key.grid.size)]
    if labels is not None:
        features["label"] = datasets.ClassLabel(names=list(key.classes))
        columns.append(pyarrow.array(labels))
    if captions is not None:
        features["captions"] = datasets.List(datasets.Value("string"))
        columns.append(pyarrow.array([list(some) for some in captions], pyarrow.list_(pyarrow.string())))
    table = pyarrow.Table.from_arrays(columns, names=list(features))
    write_table(path, table.cast(datasets.Features(features).arrow_schema))


def open_codes(folder: Path) -> CodeData:
    """Open a code dataset. Every shard is checked here, once; codes are read when they are needed.

    Raises:
        InputError: The folder is absent, unfinished, incomplete or damaged, or its codes are not those of the
            tokenizer in it.
    """
    key = read_key(folder)
    splits = opened_splits(folder, key.tokenizer, "grids", lambda split: CodeItems(split, key))
    train, test = (
        IndexedSplit(items, digest(key, name), held=True) for name, items in zip(SPLITS, splits, strict=True)
    )
    return CodeData(folder, key, train, test)


def grids_in(folder: Path) -> int:
    """How many grids each item of a code dataset consists of, as the configuration of its tokenizer says: 1 or more.

    Raises:
        InputError: There is no tokenizer in the folder.
    """
    config, path = _tokenizer_config(folder)
    return member(config, "grids", int, path, 1)


def smallest_codebook_in(folder: Path) -> int:
    """How many codes the first site of a grid may have, where the tokenizer's codebook grows; 0 where it does not.

    Raises:
        InputError: There is no tokenizer in the folder.
    """
    config, path = _tokenizer_config(folder)
    quantizer = member(config, "quantizer", dict, path, {})
    return member(quantizer, "smallest_codebook", int, path, 0)


def _tokenizer_config(folder: Path) -> tuple[dict[str, Any], Path]:
    """The configuration of the tokenizer in a code dataset, and the file that it is in."""
    path = folder / "tokenizer" / CONFIG_NAME
    return member(read_json(path), "config", dict, path), path


def read_key(folder: Path) -> CodesKey:
    """What the codes in a folder were made from."""
    content, path = described(folder), folder / CODES_NAME
    if "kind" in content:
        raise InputError(f"{folder} holds {content['kind']}, expected codes of images")
    key: CodesKey = from_json(CodesKey, member(content, "key", dict, path), path)
    return key
