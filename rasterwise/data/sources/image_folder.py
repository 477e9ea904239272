"""A local folder of images as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

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
    """

    root: Path
    names: tuple[str, ...]
    classes: tuple[str, ...]
    states: tuple[FileState, ...]

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        found = {IMAGE: Column("images", "images")}
        return found | ({LABEL: Column("strings", "names of class folders")} if self.classes else {})

    @property
    def files(self) -> Mapping[str, FileState]:
        return {str(self.root / name): state for name, state in zip(self.names, self.states, strict=True)}

    @property
    def state(self) -> tuple[object, ...]:
        return tuple(
            (name, state.size, state.modified_ns) for name, state in zip(self.names, self.states, strict=True)
        )

    def select_columns(self, names: Sequence[str]) -> FolderTable:
        return self if LABEL in names else replace(self, classes=())

    def distinct(self, column: str) -> set[Label | None]:
        assert column == LABEL
        return set(self.classes)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Row:
        path = str(self.root / self.names[index])
        values = {IMAGE: {"bytes": None, "path": path}}
        return Row(index, values | ({LABEL: self.classes[index]} if self.classes else {}), path)


def open_image_folder(listing: Listing, *, with_classes: bool = True) -> dict[str, IndexedRows]:
    """The splits of a folder of images.

    Args:
        listing: The folder, listed.
        with_classes: Take class folders for classes.

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
            )
        )
        for split, images in splits.items()
    }
