"""Rows of a Hugging Face dataset as batches of prepared pictures: in memory, on demand, or streamed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from PIL import Image
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.images import Colour, Resample, decode_picture, picture_to_tensor, resized
from rasterwise.splits import Batch, IndexedSplit, Split, tensor_split

SHUFFLE_BUFFER = 2048


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset, by what they hold; None where it has none."""

    image: str
    label: str | None
    caption: str | None


@dataclass(frozen=True)
class Preparation:
    """How every picture becomes uint8 ``(channels, height, width)``."""

    colour: Colour
    height: int
    width: int
    resample: Resample
    resize: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1 if self.colour == "grey" else 3, self.height, self.width

    def __call__(self, picture: Image.Image) -> Tensor:
        if self.resize:
            picture = resized(picture, self.height, self.width, self.resample)
        elif picture.size != (self.width, self.height):
            found = f"{picture.width}×{picture.height}"
            raise InputError(
                f"is {found} where others are {self.width}×{self.height}; choose one with --size"
            )
        return picture_to_tensor(picture, self.colour)


def decode_stored(stored: dict[str, Any] | None, index: int, split: str) -> Image.Image:
    """The picture of a row, stored as its file's bytes or path; InputError names one that does not decode."""
    where = f"picture {index} of split {split!r}"
    if not stored:
        raise InputError(f"{where} is missing, expected a picture; remove the row")
    path = stored.get("path") or ""
    try:
        content = stored.get("bytes")
        return decode_picture(Path(path).read_bytes() if content is None else content)
    except Exception as error:
        named = f"{where} ({path})" if path else where
        raise InputError(f"{named} does not decode ({error}); mend or remove it") from None


class Reader:
    """Rows of a Hugging Face dataset as batches of prepared pictures."""

    def __init__(
        self, name: str, columns: Columns, preparation: Preparation, classes: int, origin: str
    ) -> None:
        self.name, self.columns, self.preparation = name, columns, preparation
        self.classes, self.origin = classes, origin

    def split(self, rows: Any, workers: int, progress: Callable[[int, int], None] | None) -> Split:
        kept = [self.columns.image] + ([self.columns.label] if self.columns.label else [])
        rows = rows.select_columns(kept)
        if not hasattr(rows, "select"):
            return StreamedSplit(rows, self, _digest(self.origin, self.name, self.preparation))
        count = len(rows)
        if not count:
            raise InputError(f"split {self.name!r} is empty, expected pictures")
        channels, height, width = self.preparation.shape
        if count * channels * height * width <= psutil.virtual_memory().available // 2:
            return self._in_memory(rows, progress)
        fingerprint = _digest(rows._fingerprint, self.preparation)
        return IndexedSplit(count, lambda indices: self._fetch(rows, indices), fingerprint, workers)

    def _in_memory(self, rows: Any, progress: Callable[[int, int], None] | None) -> IndexedSplit:
        count = len(rows)
        images = torch.empty(count, *self.preparation.shape, dtype=torch.uint8)
        labels = torch.empty(count, dtype=torch.int64) if self.columns.label else None
        for index, row in enumerate(rows):
            images[index], label = self.read(row, index)
            if labels is not None:
                labels[index] = label
            if progress and (index + 1) % 256 == 0:
                progress(index + 1, count)
        return tensor_split(images, labels)

    def _fetch(self, rows: Any, indices: list[int]) -> Batch:
        return self.batch([self.read(rows[index], index) for index in indices])

    def read(self, row: dict[str, Any], index: int) -> tuple[Tensor, int]:
        """The prepared picture and the label (-1: none) of a row."""
        picture = decode_stored(row[self.columns.image], index, self.name)
        try:
            image = self.preparation(picture)
        except InputError as error:
            raise InputError(f"picture {index} of split {self.name!r} {error}") from None
        if not self.columns.label:
            return image, -1
        label = row[self.columns.label]
        if label is None or not 0 <= label < self.classes:
            raise InputError(
                f"picture {index} of split {self.name!r} has label {label}, expected 0 to {self.classes - 1}"
            )
        return image, label

    def batch(self, items: list[tuple[Tensor, int]]) -> Batch:
        images, labels = zip(*items, strict=True)
        return Batch(torch.stack(images), torch.tensor(labels) if self.columns.label else None)


class StreamedSplit:
    """A split read from its files as it is needed; its length is not known beforehand."""

    def __init__(self, rows: Any, reader: Reader, fingerprint: str) -> None:
        self._rows, self._reader, self._fingerprint = rows, reader, fingerprint

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def length(self) -> None:
        return None

    def shuffled(
        self, batch_size: int, *, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        # One open shard at a time: with more, an iterator's end waits seconds for its readers.
        rows = self._rows.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER, max_buffer_input_shards=1)

        def endless() -> Iterator[tuple[int, dict[str, Any]]]:
            for epoch in itertools.count():
                rows.set_epoch(epoch)
                yield from enumerate(rows)

        # Skipped rows are read but not decoded; every process reads all rows and decodes its own.
        stream = itertools.islice(endless(), start * batch_size, None)
        while True:
            chosen = list(itertools.islice(stream, batch_size))[rank::world]
            yield self._reader.batch([self._reader.read(row, index) for index, row in chosen])

    def ordered(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        stream = itertools.islice(enumerate(self._rows), rank, None, world)
        while chosen := list(itertools.islice(stream, batch_size)):
            yield self._reader.batch([self._reader.read(row, index) for index, row in chosen])


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
