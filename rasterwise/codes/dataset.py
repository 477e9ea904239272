"""Datasets of codes: images encoded once by a tokenizer, kept on disk with the tokenizer that made them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rasterwise.configuration import CountOrZero, configuration
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.indexed import IndexedSplit
from rasterwise.data.reading import digest
from rasterwise.data.splits import Batch, Fetched
from rasterwise.errors import InputError
from rasterwise.files import from_json, member, new_file, read_json, verify_manifest
from rasterwise.models.pretrained import CONFIG_NAME, read_fingerprint
from rasterwise.symbols.grid import Grid

CODES_NAME = "codes.json"
UNFINISHED_NAME = "unfinished.json"
SPLITS = ("train", "test")
SHARD_SUFFIX = ".arrow"
SHARD_ID = b"rasterwise.shard"
"""The name in a shard's metadata under which it says its split and index."""


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
    """

    tokenizer: str
    train: str
    test: str
    grid: Grid
    classes: tuple[str, ...]
    copies: CountOrZero
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
    ``datasets.Dataset.from_file`` opens it too. ``open_codes`` checks the bytes of every shard, once. Nothing is
    checked again here, so a worker that opens the same shards reads only what it needs.

    Args:
        folder: Of the split.
        key: What the codes are.

    Raises:
        ValueError: A file is no shard, or another shard than its name says. pyarrow raises errors of its own.
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

    def fetch(self, indices: list[int], *, replace: bool) -> Fetched:
        wanted = np.asarray(indices, dtype=np.int64)
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


def shard_path(folder: Path, split: str, index: int) -> Path:
    """Where in a code dataset's folder a shard is."""
    return folder / split / f"{index:06d}{SHARD_SUFFIX}"


def shard_names(lengths: dict[str, list[int]]) -> list[str]:
    """The names of all shards, relative to the folder of the code dataset."""
    return [
        shard_path(Path(), split, index).as_posix()
        for split in SPLITS
        for index in range(len(lengths[split]))
    ]


def _shard_id(path: Path) -> bytes:
    """Split and index of the shard at a path, as in its metadata: ``train/000003``."""
    return f"{path.parent.name}/{path.stem}".encode()


def _mapped(path: Path, key: CodesKey) -> tuple[np.ndarray, np.ndarray]:
    """A shard's codes, int32 ``(n, grid.size)``, and labels, int64 ``(n,)``; both lie in the file."""
    import pyarrow

    table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all().combine_chunks()
    found = (table.schema.metadata or {}).get(SHARD_ID, _shard_id(path))  # earlier versions wrote none
    if found != _shard_id(path):
        raise ValueError(f"{path.name} is the shard {found.decode(errors='replace')}")
    wanted = {"codes": pyarrow.list_(pyarrow.int32(), key.grid.size)}
    if key.classes:
        wanted["label"] = pyarrow.int64()
    for name, kind in wanted.items():
        if name not in table.column_names or table.schema.field(name).type != kind:
            raise ValueError(f"{path.name} has no column {name!r} of {kind}")
    table.validate(full=True)
    codes = table["codes"].combine_chunks().flatten().to_numpy()
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
    schema = datasets.Features(features).arrow_schema
    table = table.cast(schema.with_metadata({**(schema.metadata or {}), SHARD_ID: _shard_id(path)}))
    with new_file(path) as pending, pyarrow.ipc.new_stream(str(pending), table.schema) as writer:
        writer.write_table(table)


def open_codes(folder: Path) -> CodeData:
    """Open a code dataset. Every shard is checked here, once; codes are read when they are needed.

    Raises:
        InputError: The folder is absent, unfinished, incomplete or damaged, or its codes are not those of the
            tokenizer in it.
    """
    import pyarrow

    key = read_key(folder)
    path, mend = folder / CODES_NAME, f"delete {folder} and encode again"
    lengths = member(read_json(path), "shards", dict, path)
    expected = {name: member(lengths, name, list, f"shards of {path}") for name in SPLITS}
    verify_manifest(folder, shard_names(expected), mend)
    found = read_fingerprint(folder / "tokenizer")
    if found not in (None, key.tokenizer):
        raise InputError(
            f"{folder} holds codes of tokenizer {key.tokenizer[:12]}…, but {found[:12]}… is in its tokenizer/; {mend}"
        )
    splits = []
    for name in SPLITS:
        try:
            items = CodeItems(folder / name, key)
            if items.shard_lengths != expected[name]:
                raise ValueError(f"its shards hold {items.shard_lengths} grids, expected {expected[name]}")
        except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder / name} is damaged ({error}); {mend}") from None
        splits.append(IndexedSplit(items, digest(key, name), held=True))
    return CodeData(folder, key, *splits)


def read_key(folder: Path) -> CodesKey:
    """What the codes in a folder were made from."""
    if not folder.is_dir():
        raise InputError(f"codes folder {folder} does not exist; `rasterwise encode` makes one")
    if (folder / UNFINISHED_NAME).exists() and not (folder / CODES_NAME).exists():
        raise InputError(f"the encoding in {folder} is not finished; the command that began it goes on")
    path = folder / CODES_NAME
    key: CodesKey = from_json(CodesKey, member(read_json(path), "key", dict, path), path)
    if not (folder / "tokenizer" / CONFIG_NAME).exists():
        raise InputError(f"{folder} lacks its tokenizer/; delete it and encode again")
    return key
