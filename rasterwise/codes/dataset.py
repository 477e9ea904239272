"""Datasets of codes: a dataset encoded once by a tokenizer, on disk, and never taken for another one's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rasterwise.data.augmentation import Augmentation
from rasterwise.data.indexed import IndexedSplit
from rasterwise.data.rows import digest
from rasterwise.data.splits import Batch, Fetched
from rasterwise.errors import InputError
from rasterwise.files import from_json, new_file, read_json
from rasterwise.models.pretrained import CONFIG_NAME
from rasterwise.symbols.grid import Grid

CODES_NAME = "codes.json"
UNFINISHED_NAME = "unfinished.json"
SPLITS = ("train", "test")
SHARD_SUFFIX = ".arrow"


@dataclass(frozen=True)
class CodesKey:
    """What a code dataset was made from, and what it holds.

    Attributes:
        tokenizer: Fingerprint of the tokenizer.
        train: Fingerprint of the images that became the train split.
        test: The same for the test split.
        grid: The grid of each item.
        classes: Names of the classes.
        copies: Augmented copies of each training image, encoded beside the image itself.
        augmentation: How they differ from it.
    """

    tokenizer: str
    train: str
    test: str
    grid: Grid
    classes: tuple[str, ...]
    copies: int
    augmentation: Augmentation


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

    A shard is an Arrow file of ``codes``, int32 lists in raster order, and perhaps ``label``;
    ``datasets.Dataset.from_file`` opens it too.

    Args:
        folder: Of the split.
        key: What the codes are.
    """

    def __init__(self, folder: Path, key: CodesKey) -> None:
        self.folder, self.key = folder, key
        shards = [_mapped(path, key) for path in sorted(folder.glob("*" + SHARD_SUFFIX))]
        self._codes = [codes for codes, _ in shards]
        self._labels = [labels for _, labels in shards]
        self._ends = np.cumsum([len(codes) for codes in self._codes], dtype=np.int64)

    @property
    def shard_lengths(self) -> list[int]:
        """Grids in each shard."""
        return [len(codes) for codes in self._codes]

    def __reduce__(self) -> tuple[Any, ...]:  # a worker maps the files itself
        return CodeItems, (self.folder, self.key)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def fetch(self, numbers: list[int], *, replace: bool) -> Fetched:
        wanted = np.asarray(numbers, dtype=np.int64)
        shards = np.searchsorted(self._ends, wanted, side="right")
        codes = np.empty((len(wanted), self.key.grid.size), dtype=np.int64)
        labels = np.empty(len(wanted), dtype=np.int64)
        for shard in np.unique(shards):
            here = shards == shard
            rows = wanted[here] - (self._ends[shard] - len(self._codes[shard]))
            codes[here] = self._codes[shard][rows]
            if self.key.classes:
                labels[here] = self._labels[shard][rows]
        batch = Batch(
            torch.from_numpy(codes).view(-1, *self.key.grid.shape),
            torch.from_numpy(labels) if self.key.classes else None,
            None if replace else torch.from_numpy(wanted),
        )
        return Fetched(batch, {})


def _mapped(path: Path, key: CodesKey) -> tuple[np.ndarray, np.ndarray]:
    """A shard's codes, int32 ``(n, grid.size)``, and labels, int64 ``(n,)``; both lie in the file."""
    import pyarrow

    table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all().combine_chunks()
    codes = table["codes"].combine_chunks().flatten().to_numpy()
    if len(codes) != len(table) * key.grid.size:
        raise ValueError(f"{path.name} holds {len(codes)} codes in {len(table)} grids of {key.grid.size}")
    labels = table["label"].combine_chunks().to_numpy() if key.classes else np.empty(0, dtype=np.int64)
    return codes.reshape(len(table), key.grid.size), labels


def write_shard(path: Path, codes: np.ndarray, labels: np.ndarray | None, key: CodesKey) -> None:
    """Write a shard; the file is whole or absent.

    Args:
        path: The shard's, in the folder of its split.
        codes: int32 ``(n, grid.size)``.
        labels: int64 ``(n,)``, where the key has classes.
        key: What the codes are.
    """
    import datasets
    import pyarrow

    features: dict[str, Any] = {"codes": datasets.List(datasets.Value("int32"), length=key.grid.size)}
    columns = [pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(codes.reshape(-1)), key.grid.size)]
    if labels is not None:
        features["label"] = datasets.ClassLabel(names=list(key.classes))
        columns.append(pyarrow.array(labels))
    table = pyarrow.Table.from_arrays(columns, names=list(features))
    table = table.cast(datasets.Features(features).arrow_schema)
    with new_file(path) as pending, pyarrow.ipc.new_stream(str(pending), table.schema) as writer:
        writer.write_table(table)


def open_codes(folder: Path) -> CodeData:
    """Open a code dataset; its codes are read as they are needed.

    Raises:
        InputError: The folder is absent, lacks a part, is damaged or unfinished, or holds no codes.
    """
    import pyarrow

    key, shards = read_key(folder), read_json(folder / CODES_NAME).get("shards", {})
    splits = []
    for name in SPLITS:
        try:
            items = CodeItems(folder / name, key)
            found, expected = items.shard_lengths, shards.get(name)
            if found != expected:
                raise ValueError(f"its shards hold {found} grids, expected {expected}")
        except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{folder / name} is damaged ({error}); delete {folder} and encode again"
            ) from None
        splits.append(IndexedSplit(items, digest(key, name), held=True))
    return CodeData(folder, key, *splits)


def read_key(folder: Path) -> CodesKey:
    """What the codes in a folder were made from."""
    if not folder.is_dir():
        raise InputError(f"codes folder {folder} does not exist; `rasterwise encode` makes one")
    if (folder / UNFINISHED_NAME).exists() and not (folder / CODES_NAME).exists():
        raise InputError(f"the encoding in {folder} is not finished; the command that began it goes on")
    content = read_json(folder / CODES_NAME)
    key: CodesKey = from_json(CodesKey, content.get("key", {}), folder / CODES_NAME)
    if not (folder / "tokenizer" / CONFIG_NAME).exists():
        raise InputError(f"{folder} lacks its tokenizer/; delete it and encode again")
    return key
