"""Datasets of interleaved documents: their images encoded once by a tokenizer, their texts kept as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rasterwise.codes.shards import (
    CODES_NAME,
    SHARD_SUFFIX,
    described,
    mapped_table,
    opened_splits,
    write_table,
)
from rasterwise.configuration import configuration
from rasterwise.errors import InputError
from rasterwise.files import from_json, member
from rasterwise.symbols.grid import Grid

if TYPE_CHECKING:
    import pyarrow

KIND = "documents"
"""What ``codes.json`` says of such a folder; of codes of images it says nothing."""

EncodedDocument = tuple[str | np.ndarray, ...]
"""Texts, and images as their codes in raster order: int32 ``(grid.size,)``."""


@configuration()
class DocumentsKey:
    """What a dataset of documents was made from, and what it holds.

    Attributes:
        tokenizer: Fingerprint of the image tokenizer.
        train: Fingerprint of the documents that became the train split.
        test: The same for the test split.
        grid: The grid of each image.
    """

    what: ClassVar[str] = KIND

    tokenizer: str
    train: str
    test: str
    grid: Grid


@dataclass(frozen=True)
class DocumentData:
    """An opened dataset of documents.

    Attributes:
        folder: Where it is; ``folder/tokenizer`` is the tokenizer of its images.
        key: What it was made from.
        train: The documents to train on.
        test: The documents to evaluate on.
    """

    folder: Path
    key: DocumentsKey
    train: DocumentItems
    test: DocumentItems


class DocumentItems:
    """Documents in the shards of a folder, mapped into memory: only those that are drawn are read.

    A shard is an Arrow file of ``is_image``, a list of booleans for each document's parts in order; ``text``, the list
    of its texts; and ``codes``, those of its images in raster order, one image after the other.

    Args:
        folder: Of the split.
        key: What the documents are.

    Raises:
        ValueError: A file is no shard, or another shard than its name says. pyarrow raises errors of its own.
    """

    def __init__(self, folder: Path, key: DocumentsKey) -> None:
        self.folder, self.key = folder, key
        self._shards = [_Shard.mapped(path) for path in sorted(folder.glob("*" + SHARD_SUFFIX))]
        self._ends = np.cumsum(self.shard_lengths, dtype=np.int64)

    @property
    def shard_lengths(self) -> list[int]:
        """Documents in each shard."""
        return [len(shard.texts) for shard in self._shards]

    def __reduce__(self) -> tuple[object, ...]:  # a worker maps the files itself
        return DocumentItems, (self.folder, self.key)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> EncodedDocument:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._shards[number]
        return shard.document(int(index - (self._ends[number] - len(shard.texts))), self.key.grid.size)

    def __iter__(self) -> Iterator[EncodedDocument]:
        return (self[index] for index in range(len(self)))

    def texts(self) -> Iterator[str]:
        """All texts: what a text tokenizer is trained on."""
        for shard in self._shards:
            yield from shard.texts.flatten().to_pylist()


@dataclass(frozen=True)
class _Shard:
    """A shard, mapped into memory: lists by document, and where in ``codes`` and ``is_image`` a document begins."""

    texts: pyarrow.Array
    codes: np.ndarray
    code_offsets: np.ndarray
    is_image: np.ndarray
    part_offsets: np.ndarray

    @classmethod
    def mapped(cls, path: Path) -> _Shard:
        table = mapped_table(path, _columns())
        texts, codes, is_image = (table[name].combine_chunks() for name in _columns())
        return cls(
            texts,
            codes.values.to_numpy(),
            codes.offsets.to_numpy(),
            is_image.values.to_numpy(zero_copy_only=False),
            is_image.offsets.to_numpy(),
        )

    def document(self, row: int, size: int) -> EncodedDocument:
        texts = iter(self.texts[row].as_py())
        codes = self.codes[self.code_offsets[row] : self.code_offsets[row + 1]].reshape(-1, size)
        images = iter(codes)
        kinds = self.is_image[self.part_offsets[row] : self.part_offsets[row + 1]]
        return tuple(next(images) if image else next(texts) for image in kinds)


def _columns() -> dict[str, pyarrow.DataType]:
    import pyarrow

    kinds = {"text": pyarrow.string(), "codes": pyarrow.int32(), "is_image": pyarrow.bool_()}
    return {name: pyarrow.list_(kind) for name, kind in kinds.items()}


def write_documents(path: Path, documents: Sequence[EncodedDocument]) -> None:
    """Write a shard; the file is whole or absent.

    Args:
        path: The shard's, in the folder of its split.
        documents: Its content.
    """
    import pyarrow

    rows: dict[str, list[object]] = {
        "text": [[part for part in document if isinstance(part, str)] for document in documents],
        "codes": [_joined(document) for document in documents],
        "is_image": [[not isinstance(part, str) for part in document] for document in documents],
    }
    write_table(
        path, pyarrow.table({name: pyarrow.array(rows[name], kind) for name, kind in _columns().items()})
    )


def _joined(document: EncodedDocument) -> np.ndarray:
    images = [part for part in document if not isinstance(part, str)]
    return np.concatenate([np.empty(0, dtype=np.int32), *images])


def holds_documents(folder: Path) -> bool:
    """Whether a folder of codes holds documents, and not images alone; InputError where it holds no codes."""
    return described(folder).get("kind") == KIND


def open_documents(folder: Path) -> DocumentData:
    """Open a dataset of documents. Every shard is checked here, once; documents are read when they are needed.

    Raises:
        InputError: The folder is absent, unfinished, incomplete or damaged, or its codes are not those of the
            tokenizer in it.
    """
    key = read_documents_key(folder)
    splits = opened_splits(folder, key.tokenizer, "documents", lambda split: DocumentItems(split, key))
    return DocumentData(folder, key, *splits)


def read_documents_key(folder: Path) -> DocumentsKey:
    """What the documents in a folder were made from."""
    content, path = described(folder), folder / CODES_NAME
    if not holds_documents(folder):
        raise InputError(
            f"{folder} holds codes of images, expected documents: `rasterwise encode --documents`"
        )
    key: DocumentsKey = from_json(DocumentsKey, member(content, "key", dict, path), path)
    return key
