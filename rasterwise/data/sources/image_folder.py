"""A local folder of images as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rasterwise.data.sources.caption_files import FolderCaptions
from rasterwise.data.sources.columns import Column
from rasterwise.data.sources.folders import Listing, image_splits, named
from rasterwise.data.sources.rows import IndexedRows, Label, Row
from rasterwise.data.sources.state import FileState
from rasterwise.errors import InputError

IMAGE, LABEL = "image", "label"
"""Names of the columns that a folder of images has; without class folders, it has no labels."""


@dataclass(frozen=True)
class FolderTable:
    """The images of one split of a folder.

    Attributes:
        root: The folder.
        names: Of the images, relative to it, in order.
        classes: The class folder of each image; empty where there are none.
        states: Of the images.
        captions: Of the images, where they are read.
    """

    root: Path
    names: tuple[str, ...]
    classes: tuple[str, ...]
    states: tuple[FileState, ...]
    captions: FolderCaptions | None = None

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        found = {IMAGE: Column("images", "images")}
        labels = {LABEL: Column("strings", "names of class folders")} if self.classes else {}
        texts = {self.captions.column: Column("string lists", "captions")} if self.captions else {}
        return found | labels | texts

    @property
    def files(self) -> Mapping[str, FileState]:
        states = dict(zip(self.names, self.states, strict=True))
        states |= self.captions.files if self.captions else {}
        return {str(self.root / name): state for name, state in states.items()}

    @property
    def state(self) -> tuple[object, ...]:
        images = tuple(
            (name, state.size, state.modified_ns) for name, state in zip(self.names, self.states, strict=True)
        )
        return (*images, *self.captions.by_image.items()) if self.captions else images

    def select_columns(self, names: Sequence[str]) -> FolderTable:
        captions = self.captions if self.captions and self.captions.column in names else None
        return replace(self, classes=self.classes if LABEL in names else (), captions=captions)

    def distinct(self, column: str) -> set[Label | None]:
        assert column == LABEL
        return set(self.classes)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Row:
        name = self.names[index]
        path = str(self.root / name)
        values: dict[str, Any] = {IMAGE: {"bytes": None, "path": path}}
        if self.classes:
            values[LABEL] = self.classes[index]
        if self.captions:
            values[self.captions.column] = self.captions.by_image[name]
        return Row(index, values, path, self.states[index])


def open_image_folder(
    listing: Listing, *, with_classes: bool = True, captions: FolderCaptions | None = None
) -> dict[str, IndexedRows]:
    """The splits of a folder of images.

    Args:
        listing: The folder, listed.
        with_classes: Take class folders for classes.
        captions: Of the images.

    Raises:
        InputError: The folders' names do not say what the splits are, or images lie beside class folders.
    """
    splits = image_splits(listing)
    classified = any(folder for images in splits.values() for _, folder in images) and with_classes
    for images in splits.values():
        loose = [name for name, folder in images if not folder]
        if classified and loose:
            raise InputError(
                f"dataset folder {listing.root} has class folders, but {named(loose)} lie in none of them; move them "
                "into one, or read all images without classes: --label-column none"
            )
    return {
        split: IndexedRows(
            FolderTable(
                listing.root,
                tuple(name for name, _ in images),
                tuple(folder for _, folder in images) if classified else (),
                tuple(listing.images[name] for name, _ in images),
                captions,
            )
        )
        for split, images in splits.items()
    }
