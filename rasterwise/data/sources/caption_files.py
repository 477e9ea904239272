"""Captions of the images in a folder: in metadata.jsonl, or in a text file beside each image."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rasterwise.data.sources.captions import CAPTION_NAMES, caption_name, captions_in
from rasterwise.data.sources.folders import Listing
from rasterwise.data.sources.state import FileState
from rasterwise.errors import InputError
from rasterwise.files import read_json_lines

METADATA_NAME = "metadata.jsonl"
TEXT_ENDING = ".txt"


@dataclass(frozen=True)
class FolderCaptions:
    """The captions of the images in a folder.

    Attributes:
        column: The column that they become: the key that the user named, else "caption".
        by_image: One or more for each image, by the image's name.
        files: The files that they are from.
    """

    column: str
    by_image: Mapping[str, tuple[str, ...]]
    files: Mapping[str, FileState]


def captions_of_folder(listing: Listing, key: str | None = None) -> FolderCaptions:
    """The captions of all images in a folder.

    They stand in ``metadata.jsonl``, one object a line with ``file_name`` and a key for the caption or a list of
    captions; several lines may be about one image, and folders may have such files of their own. Where there is
    none, they stand beside each ``name.png`` in ``name.txt``, one a line.

    Args:
        listing: The folder, listed.
        key: Of captions in metadata.jsonl; found by its name unless given.

    Raises:
        InputError: An image has no caption, or a line is about no image.
    """
    column = key or CAPTION_NAMES[0]
    tables = [name for name in listing.unread if posixpath.basename(name) == METADATA_NAME]
    if tables:
        return FolderCaptions(column, *_from_tables(listing, tables, key))
    found, files = {}, {}
    for image in listing.images:
        name = posixpath.splitext(image)[0] + TEXT_ENDING
        found[image] = _from_text_file(listing.root / name, listing.root / image)
        files[name] = _state(listing.root / name)
    return FolderCaptions(column, found, files)


def _from_text_file(path: Path, image: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(
            f"{image} has no caption: expected {path.name} beside it, or {METADATA_NAME}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected captions in UTF-8, one a line") from None
    try:
        return captions_in([line.strip() for line in lines if line.strip()])
    except InputError as error:
        raise InputError(f"{path} {error}") from None


def _from_tables(
    listing: Listing, tables: list[str], key: str | None
) -> tuple[dict[str, tuple[str, ...]], dict[str, FileState]]:
    found: dict[str, tuple[str, ...]] = {}
    for table in tables:
        for number, row in read_json_lines(listing.root / table):
            where = f"{listing.root / table}:{number}"
            name = row.get("file_name")
            if not isinstance(name, str) or not name:
                raise InputError(f"{where}: has no file_name; expected the image's path from {METADATA_NAME}")
            image = posixpath.normpath(posixpath.join(posixpath.dirname(table), name))
            if image not in listing.images:
                raise InputError(
                    f"{where}: {name!r} is no image in {listing.root / posixpath.dirname(table)}"
                )
            try:
                captions = captions_in(row[caption_name(row, key)])
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            found[image] = found.get(image, ()) + captions
    for image in listing.images:
        if image not in found:
            raise InputError(
                f"{listing.root / image} is in no {METADATA_NAME}; add a line for it, or remove it"
            )
    return found, {table: _state(listing.root / table) for table in tables}


def _state(path: Path) -> FileState:
    status = path.stat()
    return FileState(status.st_size, status.st_mtime_ns)
