"""Rows of a dataset as prepared images: held in memory, or read as they are needed."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor

from rasterwise.data.indexed import IndexedSplit, tensor_split
from rasterwise.data.splits import Batch, Fetched
from rasterwise.data.workers import BrokenImages
from rasterwise.errors import InputError
from rasterwise.images import Colour, Resample, decode_image, pil_to_tensor, resized
from rasterwise.processes import all_agree, is_main_process, processes_here

_log = logging.getLogger(__name__)


class BrokenImageError(InputError):
    """An image that is missing or does not decode."""


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset, by what they hold; None where it has none."""

    image: str
    label: str | None
    caption: str | None


@dataclass(frozen=True)
class Row:
    """A row as it is stored.

    Attributes:
        number: Its number in its split as stored, before any rows are set aside.
        values: What its columns hold.
        file: The file that it was read from, where one is known.
    """

    number: int
    values: dict[str, Any]
    file: str = ""


@dataclass(frozen=True)
class Preparation:
    """How every image becomes uint8 ``(channels, height, width)``."""

    colour: Colour
    height: int
    width: int
    resample: Resample
    resize: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1 if self.colour == "grey" else 3, self.height, self.width

    def __call__(self, image: Image.Image) -> Tensor:
        if self.resize:
            image = resized(image, self.height, self.width, self.resample)
        elif image.size != (self.width, self.height):
            found = f"{image.width}×{image.height}"
            raise InputError(
                f"is {found} where others are {self.width}×{self.height}; choose one with --size"
            )
        return pil_to_tensor(image, self.colour)


def decode_stored(row: Row, column: str, split: str) -> Image.Image:
    """The image of a row, stored as its file's bytes or path; BrokenImageError names one that is none."""
    stored = row.values[column]
    where = f"image {row.number} of split {split!r}"
    if not stored:
        raise BrokenImageError(f"{where} is missing, expected an image; remove the row, or --skip-broken")
    path = stored.get("path") or ""
    try:
        content = stored.get("bytes")
        return decode_image(Path(path).read_bytes() if content is None else content)
    except Exception as error:
        named = ", ".join(name for name in (row.file, path) if name)
        where = f"{where} ({named})" if named else where
        raise BrokenImageError(
            f"{where} does not decode ({error}); mend or remove it, or --skip-broken"
        ) from None


class IndexedRows:
    """Rows of a Hugging Face dataset that can be indexed.

    Args:
        table: The dataset.
        indices: Which of its rows; all of them by default.
    """

    def __init__(self, table: Any, indices: np.ndarray | None = None) -> None:
        self.table = table if indices is None else table.select(indices)
        self.indices = np.arange(len(table)) if indices is None else indices

    @property
    def features(self) -> Any:
        """What the columns hold."""
        return self.table.features

    def select_columns(self, columns: list[str]) -> IndexedRows:
        """The same rows with fewer columns."""
        fewer = IndexedRows(self.table.select_columns(columns))
        fewer.indices = self.indices
        return fewer

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Row:
        return Row(int(self.indices[index]), self.table[index])

    def __iter__(self) -> Iterator[Row]:
        for number, values in zip(self.indices, self.table, strict=True):
            yield Row(int(number), values)


@dataclass(frozen=True)
class Reader:
    """Makes prepared images of rows.

    Attributes:
        name: The split's.
        columns: Where in a row they are.
        preparation: How they are prepared.
        classes: How many there are.
        skip_broken: Leave broken images out instead of stopping at one.
    """

    name: str
    columns: Columns
    preparation: Preparation
    classes: int
    skip_broken: bool = False

    @property
    def kept_columns(self) -> list[str]:
        """The columns that reading takes."""
        return [self.columns.image] + ([self.columns.label] if self.columns.label else [])

    def read(self, row: Row) -> tuple[Tensor, int]:
        """The prepared image and the label (-1: none) of a row."""
        decoded = decode_stored(row, self.columns.image, self.name)
        try:
            image = self.preparation(decoded)
        except InputError as error:
            raise InputError(f"image {row.number} of split {self.name!r} {error}") from None
        if not self.columns.label:
            return image, -1
        label = row.values[self.columns.label]
        if label is None or not 0 <= label < self.classes:
            raise InputError(
                f"image {row.number} of split {self.name!r} has label {label}, "
                f"expected 0 to {self.classes - 1}"
            )
        return image, label

    def first_whole(self, rows: Iterable[Row], broken: dict[int, str]) -> tuple[Tensor, int] | None:
        """The first row that is whole, where broken ones are left out; those before it go into ``broken``."""
        for row in rows:
            try:
                return self.read(row)
            except BrokenImageError as error:
                if not self.skip_broken:
                    raise
                broken[row.number] = str(error)
        return None

    def batch(self, items: list[tuple[Tensor, int]], indices: list[int] | None = None) -> Batch | None:
        """Items as a batch; None where there are none."""
        if not items:
            return None
        images, labels = zip(*items, strict=True)
        return Batch(
            torch.stack(images),
            torch.tensor(labels) if self.columns.label else None,
            None if indices is None else torch.tensor(indices),
        )


@dataclass(frozen=True)
class RowItems:
    """Rows that are read as they are needed; the next whole one takes the place of a broken one."""

    rows: IndexedRows
    reader: Reader

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, indices: list[int], *, replace: bool) -> Fetched:
        items, whole, broken = [], [], dict[int, str]()
        try:
            for number in indices:
                following = range(number, number + (len(self) if replace else 1))
                item = self.reader.first_whole((self.rows[i % len(self)] for i in following), broken)
                if item is not None:
                    items.append(item)
                    whole.append(number)
                elif replace:
                    raise InputError(f"no image of split {self.reader.name!r} decodes")
        except InputError as error:
            return Fetched(None, broken, str(error))
        return Fetched(self.reader.batch(items, None if replace else whole), broken)


def read_split(
    rows: IndexedRows,
    reader: Reader,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    *,
    hold: bool = True,
) -> IndexedSplit:
    """Rows that can be indexed as a split.

    Args:
        rows: The rows.
        reader: What makes images of them.
        workers: Processes that read or change images ahead.
        progress: Called with (images decoded, images in all).
        hold: Decode all of them now and keep them, if they take at most half of what memory is free.

    Raises:
        InputError: There are no rows, or no whole image; an image is broken, of another size than the
            others, or of a label that is none.
    """
    rows = rows.select_columns(reader.kept_columns)
    if not len(rows):
        raise InputError(f"split {reader.name!r} is empty, expected images")
    channels, height, width = reader.preparation.shape
    needed = len(rows) * channels * height * width
    if hold and all_agree(needed <= psutil.virtual_memory().available // 2 // processes_here()):
        return _in_memory(rows, reader, workers, progress)
    fingerprint = digest(rows.table._fingerprint, reader.preparation)
    return IndexedSplit(RowItems(rows, reader), fingerprint, workers)


def _in_memory(
    rows: IndexedRows, reader: Reader, workers: int, progress: Callable[[int, int], None] | None
) -> IndexedSplit:
    images = torch.empty(len(rows), *reader.preparation.shape, dtype=torch.uint8)
    labels = torch.empty(len(rows), dtype=torch.int64)
    whole, broken = 0, BrokenImages()
    for read, row in enumerate(rows, 1):
        found = dict[int, str]()
        item = reader.first_whole([row], found)
        broken.note(Fetched(None, found), logged=is_main_process())  # every process reads all of them
        if item is not None:
            images[whole], labels[whole] = item
            whole += 1
        if progress and read % 256 == 0:
            progress(read, len(rows))
    if broken and is_main_process():
        _log.warning("read %d images of split %r, and left out %d broken", whole, reader.name, len(broken))
    if not whole:
        raise InputError(f"no image of split {reader.name!r} decodes")
    kept = labels[:whole] if reader.columns.label else None
    return tensor_split(images[:whole], kept, workers=workers, broken=broken)


def digest(*parts: object) -> str:
    """A fingerprint of what the parts show of themselves."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def some_rows(rows: Any, most: int) -> list[Row]:
    """A few rows, from all over where any can be had at once, else the first."""
    if isinstance(rows, IndexedRows):
        return [rows[index] for index in range(0, len(rows), max(1, len(rows) // most))]
    return list(itertools.islice(rows.read(), most))
