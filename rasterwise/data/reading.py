"""Rows of a dataset as prepared images: held in memory, or read as they are needed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import torch
from PIL import Image
from torch import Tensor

from rasterwise.data.columns import Classes, Columns
from rasterwise.data.indexed import IndexedSplit, tensor_split
from rasterwise.data.sources.captions import captions_in, chosen_caption
from rasterwise.data.sources.rows import IndexedRows, Row, Rows
from rasterwise.data.sources.state import Contents
from rasterwise.data.sources.tables import indexed
from rasterwise.data.splits import Batch, Fetched
from rasterwise.data.workers import BrokenImages
from rasterwise.errors import InputError
from rasterwise.images import Colour, Resample, decode_image, is_grey, pil_to_tensor, resized
from rasterwise.processes import all_agree, is_main_process, processes_here

_log = logging.getLogger(__name__)


MEND = "mend or remove it, or --skip-broken"


class BrokenImageError(InputError):
    """An image that is missing or does not decode."""


@dataclass(frozen=True)
class Preparation:
    """How every image becomes uint8 ``(channels, height, width)``.

    Attributes:
        colour: What they become.
        height: Rows of pixels.
        width: Columns of pixels.
        resample: The filter for resizing.
        resize: Whether they are resized, or must be of this size.
        grey_seen: They become grey since those looked at first are: one that has colours is refused.
    """

    colour: Colour
    height: int
    width: int
    resample: Resample
    resize: bool
    grey_seen: bool = field(default=False, repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1 if self.colour == "grey" else 3, self.height, self.width

    def __call__(self, image: Image.Image) -> Tensor:
        if self.grey_seen and not is_grey(image):
            raise InputError("has colours where others are grey; choose with --colour")
        if self.resize:
            image = resized(image, self.height, self.width, self.resample)
        elif image.size != (self.width, self.height):
            found = f"{image.width}×{image.height}"
            raise InputError(
                f"is {found} where others are {self.width}×{self.height}; choose one with --size"
            )
        return pil_to_tensor(image, self.colour)


def stored_bytes(row: Row, column: str, split: str) -> bytes:
    """The bytes of a row's image, as they are stored.

    Raises:
        BrokenImageError: There are none.
        InputError: The file was changed after the dataset was opened.
    """
    stored = row.values[column] or {}
    content, path = stored.get("bytes"), stored.get("path")
    if content is not None:
        return bytes(content)
    # A path is one in the folder of the file that says it, never in that where a command happens to run.
    file = Path(os.path.join(os.path.dirname(row.file), path)) if path else None
    if file is None or not file.is_absolute():
        raise BrokenImageError(f"{_named(row, column, split)} is missing, expected an image; {MEND}")
    try:
        with file.open("rb") as opened:
            if row.state is not None:
                row.state.refuse_change(_named(row, column, split), os.fstat(opened.fileno()))
            return opened.read()
    except OSError as error:
        raise BrokenImageError(
            f"{_named(row, column, split)} cannot be read ({error.strerror}); {MEND}"
        ) from None


def decode_stored(row: Row, column: str, split: str, content: bytes | None = None) -> Image.Image:
    """The image of a row; BrokenImageError names one that is none.

    Args:
        row: The row.
        column: That of the images.
        split: The name of the row's split.
        content: The stored bytes, where they have been read.
    """
    content = stored_bytes(row, column, split) if content is None else content
    try:
        return decode_image(content)
    except Exception as error:
        raise BrokenImageError(f"{_named(row, column, split)} does not decode ({error}); {MEND}") from None


def _named(row: Row, column: str, split: str) -> str:
    stored = row.values[column] or {}
    files = dict.fromkeys(name for name in (row.file, stored.get("path")) if name)
    shown = ", ".join(os.fsencode(name).decode("utf-8", "replace") for name in files)
    return f"image {row.index} of split {split!r}" + (f" ({shown})" if shown else "")


@dataclass(frozen=True)
class Item:
    """What was read of a row.

    Attributes:
        image: The prepared image.
        label: Its class; -1 for none.
        captions: Its captions; empty where they are not read.
        index: The row's.
    """

    image: Tensor
    label: int
    captions: tuple[str, ...]
    index: int

    def with_one_caption(self, seed: int, epoch: int) -> Item:
        """The item with the caption that it gets in an epoch."""
        if not self.captions:
            return self
        return replace(
            self, captions=(chosen_caption(self.captions, seed=seed, epoch=epoch, index=self.index),)
        )


@dataclass(frozen=True)
class Reader:
    """Makes prepared images of rows.

    Attributes:
        name: The split's.
        columns: Where in a row they are.
        preparation: How they are prepared.
        classes: What the labels mean.
        skip_broken: Leave broken images out instead of stopping at one.
    """

    name: str
    columns: Columns
    preparation: Preparation
    classes: Classes
    skip_broken: bool = False

    def read(self, row: Row, contents: Contents | None = None) -> Item:
        """The prepared image of a row, with its label and its captions.

        Args:
            row: The row.
            contents: Takes up what was read, broken images too.
        """
        label = row.values[self.columns.label] if self.columns.label else None
        stored = row.values[self.columns.caption] if self.columns.caption else None
        content = stored_bytes(row, self.columns.image, self.name)
        if contents is not None:
            contents.add(row.file, content, (label, stored) if self.columns.caption else label)
        decoded = decode_stored(row, self.columns.image, self.name, content)
        try:
            captions = captions_in(stored) if self.columns.caption else ()
            index = self.classes.index(label) if self.columns.label else -1
            return Item(self.preparation(decoded), index, captions, row.index)
        except InputError as error:
            raise InputError(f"{_named(row, self.columns.image, self.name)} {error}") from None

    def first_whole(
        self, rows: Iterable[Row], broken: dict[int, str], contents: Contents | None = None
    ) -> Item | None:
        """The first row that is whole, where broken ones are left out; those before it go into ``broken``."""
        for row in rows:
            try:
                return self.read(row, contents)
            except BrokenImageError as error:
                if not self.skip_broken:
                    raise
                broken[row.index] = str(error)
        return None

    def batch(self, items: list[Item], indices: list[int] | None = None) -> Batch | None:
        """Items as a batch; None where there are none."""
        if not items:
            return None
        return Batch(
            torch.stack([item.image for item in items]),
            torch.tensor([item.label for item in items]) if self.columns.label else None,
            None if indices is None else torch.tensor(indices),
            tuple(item.captions for item in items) if self.columns.caption else None,
        )


@dataclass(frozen=True)
class RowItems:
    """Rows that are read as they are needed; a broken one is replaced by the next whole one."""

    rows: IndexedRows
    reader: Reader

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, indices: list[int], *, replace: bool) -> Fetched:
        items, whole, broken = [], [], dict[int, str]()
        try:
            for index in indices:
                following = range(index, index + (len(self) if replace else 1))
                item = self.reader.first_whole((self.rows[i % len(self)] for i in following), broken)
                if item is not None:
                    items.append(item)
                    whole.append(index)
                elif replace:
                    raise InputError(f"no image of split {self.reader.name!r} decodes")
        except InputError as error:
            return Fetched(None, broken, str(error))
        return Fetched(self.reader.batch(items, None if replace else whole), broken)


def read_split(
    rows: Rows,
    reader: Reader,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    *,
    contents: Contents | None = None,
) -> IndexedSplit:
    """Rows as a split whose items can be fetched by index.

    Args:
        rows: The rows.
        reader: What makes images of them.
        workers: Processes that read or change images ahead.
        progress: Called with (images decoded, images in all).
        contents: Decode all of them now and keep them, if they take at most half of what memory is free, and take up
            what was read; None: read them as they are needed.

    Raises:
        InputError: There are no rows, or no whole image; an image is broken, of another size than the
            others, or of a label that is none.
    """
    if not len(rows):
        raise InputError(f"split {reader.name!r} is empty, expected images")
    channels, height, width = reader.preparation.shape
    needed = len(rows) * channels * height * width
    fits = needed <= psutil.virtual_memory().available // 2 // processes_here()
    if contents is not None and all_agree(fits):
        return _in_memory(rows, reader, workers, progress, contents)
    fingerprint = digest(*rows.state, reader.preparation)
    return IndexedSplit(RowItems(indexed(rows), reader), fingerprint, workers)


def _in_memory(
    rows: Rows,
    reader: Reader,
    workers: int,
    progress: Callable[[int, int], None] | None,
    contents: Contents,
) -> IndexedSplit:
    images = torch.empty(len(rows), *reader.preparation.shape, dtype=torch.uint8)
    labels = torch.empty(len(rows), dtype=torch.int64)
    captions, whole, broken = list[tuple[str, ...]](), 0, BrokenImages()
    for read, row in enumerate(rows.read(), 1):
        found = dict[int, str]()
        item = reader.first_whole([row], found, contents)
        broken.note(Fetched(None, found), logged=is_main_process())  # every process reads all of them
        if item is not None:
            images[whole], labels[whole] = item.image, item.label
            captions.append(item.captions)
            whole += 1
        if progress and read % 256 == 0:
            progress(read, len(rows))
    if broken and is_main_process():
        _log.warning("read %d images of split %r, and left out %d broken", whole, reader.name, len(broken))
    if not whole:
        raise InputError(f"no image of split {reader.name!r} decodes")
    kept = labels[:whole] if reader.columns.label else None
    texts = tuple(captions) if reader.columns.caption else None
    return tensor_split(images[:whole], kept, texts, workers=workers, broken=broken)


def digest(*parts: object) -> str:
    """A fingerprint of the parts by their ``repr``."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
