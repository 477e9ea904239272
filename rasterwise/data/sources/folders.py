"""What a local folder holds: its files, and by the names of its folders the splits and the classes."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rasterwise.data.sources.state import FileState
from rasterwise.errors import InputError

# fmt: off
IMAGE_ENDINGS = {
    "apng", "avif", "bmp", "dds", "dib", "gif", "heic", "heif", "ico", "j2k", "jfif", "jp2", "jpe",
    "jpeg", "jpf", "jpg", "jpx", "jxl", "pbm", "pcx", "pfm", "pgm", "png", "pnm", "ppm", "qoi", "sgi",
    "tga", "tif", "tiff", "webp",
}
# fmt: on
"""Files with these endings are images, in lower or upper case. One that Pillow does not read is a broken image."""
PARQUET_ENDING = "parquet"

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The names that splits have, in lower or upper case."""

NAMED = 3
"""Files and folders that a message names."""


@dataclass
class Listing:
    """The files of a folder and of the folders in it, links followed; names are relative to it, with slashes.

    Attributes:
        root: The folder.
        images: Image files.
        parquet: Parquet files.
        unread: Files of other kinds, hidden images and folders, and links that lead back to where they lie.
        folders: All folders.
        linked: Where links to folders lead.
    """

    root: Path
    images: dict[str, FileState] = field(default_factory=dict)
    parquet: dict[str, FileState] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    linked: list[Path] = field(default_factory=list)


def listing_of(root: Path) -> Listing:
    """List a folder; InputError where a folder in it cannot be read.

    Names that begin with a dot are hidden and not read, as everywhere.
    """
    listing = Listing(root)
    try:
        _list(root, "", listing, frozenset())
    except OSError as error:
        raise InputError(f"dataset folder {root} cannot be read ({error})") from None
    return listing


def _list(folder: Path, prefix: str, listing: Listing, above: frozenset[tuple[int, int]]) -> None:
    own = folder.stat()
    above |= {(own.st_dev, own.st_ino)}
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name, hidden = prefix + entry.name, entry.name.startswith(".")
        status = _status(entry)
        if status is not None and stat.S_ISDIR(status.st_mode):
            if hidden or (status.st_dev, status.st_ino) in above:
                listing.unread.append(name + "/")
                continue
            if entry.is_symlink():
                listing.linked.append(Path(entry.path).resolve())
            listing.folders.append(name)
            _list(folder / entry.name, name + "/", listing, above)
            continue
        ending = os.path.splitext(entry.name)[1].removeprefix(".").lower()
        kind = (
            listing.images
            if ending in IMAGE_ENDINGS
            else listing.parquet
            if ending == PARQUET_ENDING
            else None
        )
        readable = status is None or stat.S_ISREG(status.st_mode)
        if kind is not None and readable and not hidden:
            kind[name] = FileState(status.st_size, status.st_mtime_ns) if status else FileState(0, 0)
        elif kind is not None or not hidden:
            listing.unread.append(name)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """That of what a name leads to; None where a link leads nowhere."""
    try:
        return entry.stat()
    except OSError:
        return None


def named(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(os.fsencode(name).decode("utf-8", "replace") for name in names[:NAMED]) + more


def split_of(name: str) -> str | None:
    """The split that a name says: "train", "validation", "test" or None."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def image_splits(listing: Listing) -> dict[str, list[tuple[str, str]]]:
    """The images of each split, with their classes, by the names of the folders that they lie in.

    A folder that holds everything says nothing. If the folders then at the top are all named as splits are (and no
    image lies beside them), they are the splits, by their own names; else all is ``train``. The folders below are the
    classes, whatever their names; what lies deeper in one is of its class.

    Returns:
        By split: ``(name, class)`` in the order of the names; the class is "" where an image lies in no class folder.

    Raises:
        InputError: Some of the top folders are splits, and some are not.
    """
    names = sorted(listing.images)
    start = _common_folder(names, stop_at_splits=True)
    tops = sorted({name[len(start) :].partition("/")[0] for name in names if "/" in name[len(start) :]})
    empty = [
        name[len(start) :]
        for name in listing.folders
        if name.startswith(start) and split_of(name[len(start) :]) and name[len(start) :] not in tops
    ]
    loose = [name for name in names if "/" not in name[len(start) :]]
    named_as_splits = [top for top in tops if split_of(top)]
    others = [top for top in tops if not split_of(top)] + loose
    if not named_as_splits or (others and len(named_as_splits) == 1):
        return {"train": _with_classes(names, start)}
    if others:
        raise InputError(
            f"dataset folder {listing.root} holds {', '.join(named_as_splits)}, which look like splits, and beside "
            f"them {named(others)}: put the splits, or everything else, into a folder of their own"
        )
    starts = {split: f"{start}{split}/" for split in named_as_splits + empty}
    parts = {split: [name for name in names if name.startswith(starts[split])] for split in starts}
    below = _common_folder([name.removeprefix(starts[split]) for split in parts for name in parts[split]])
    return {split: _with_classes(parts[split], starts[split] + below) for split in parts}


def _common_folder(names: Sequence[str], *, stop_at_splits: bool = False) -> str:
    """The folders, one in the other, that hold all files: "" or a name that ends with a slash."""
    start = ""
    while names:
        first = names[0][len(start) :].partition("/")
        if not first[1] or (stop_at_splits and split_of(first[0])):
            break
        if not all(name.startswith(f"{start}{first[0]}/") for name in names):
            break
        start += f"{first[0]}/"
    return start


def _with_classes(names: Sequence[str], start: str) -> list[tuple[str, str]]:
    below = ((name, name[len(start) :].partition("/")) for name in names)
    return [
        (name, unicodedata.normalize("NFC", folder) if slash else "") for name, (folder, slash, _) in below
    ]


def parquet_splits(listing: Listing) -> dict[str, list[str]]:
    """The parquet files of each split, by the words in their names.

    The innermost part of a name that has such a word says it: ``train-00000-of-00002.parquet``,
    ``mnist-test.parquet``, ``data/train/0.parquet``. Either all files have one, or none has and all are ``train``.

    Raises:
        InputError: A name has two such words, or some files have one and others do not.
    """
    splits: dict[str, list[str]] = {}
    for name in sorted(listing.parquet):
        splits.setdefault(_word_of(name, listing.root), []).append(name)
    without = splits.pop("", [])
    if not splits:
        return {"train": without}
    if without:
        raise InputError(
            f"dataset folder {listing.root} holds parquet files of the splits {', '.join(splits)}, and beside them "
            f"{named(without)}: put a split's name into the name of every file, or of none"
        )
    return splits


def _word_of(name: str, root: Path) -> str:
    for part in reversed(name.lower().removesuffix(f".{PARQUET_ENDING}").split("/")):
        words = {split for word in re.split(r"[^a-z]+", part) if (split := split_of(word))}
        if len(words) > 1:
            raise InputError(
                f"{root / name} is named after the splits {' and '.join(sorted(words))}; rename it"
            )
        if words:
            return words.pop()
    return ""
