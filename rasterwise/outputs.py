"""Outputs are claimed before any work is done: what could not be written at the end is refused at the start."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from rasterwise.errors import InputError
from rasterwise.files import clear_leftovers, hidden

if TYPE_CHECKING:
    from torch import Tensor

UNFINISHED = ".unfinished"
"""The name of a file that is in a folder of images until all of them are written."""

MEND = "name another with --output"


def claim_folder(path: Path) -> Path:
    """Refuse a folder that could not be written; it may be there or not, and hold anything.

    Returns:
        The path without links, so that what replaces the folder does not replace a link to it.

    Raises:
        InputError: It is a file or a link to nothing, its name is too long, or it is in a place that is no folder,
            or where nothing can be written.
    """
    with _refused(path):
        claimed = _without_links(path)
        if claimed.exists() and not claimed.is_dir():
            raise InputError(f"output {path} is a file, expected a folder or a new name; {MEND}")
        _try_place(claimed)
    return claimed


def claim_image(path: Path, *, inputs: Iterable[Path] = ()) -> Path:
    """Refuse a path where no image could be written; an image that is there will be replaced.

    Args:
        path: Of a PNG.
        inputs: Files that are read, which the output may not replace.

    Returns:
        The path without links.

    Raises:
        InputError: As for a folder; or it does not end with ``.png``, or is a folder or an input.
    """
    if not is_png(path):
        raise InputError(f"output {path} is no .png name, and images are written as PNG; {MEND}")
    with _refused(path):
        claimed = _without_links(path)
        if claimed.exists() and not claimed.is_file():
            kind = "folder" if claimed.is_dir() else "device"
            raise InputError(f"output {path} is a {kind}, expected a file or a new name; {MEND}")
        if any(claimed == one.resolve() for one in inputs):
            raise InputError(f"output {path} is one of the images that are read; {MEND}")
        _try_place(claimed)
        clear_leftovers(claimed.parent, glob.escape(claimed.name))
    return claimed


def claim_file(path: Path, ending: str, *, inputs: Iterable[Path] = ()) -> Path:
    """Refuse a path where no new file could be written.

    Args:
        path: Of the file, which may not be there yet.
        ending: That its name must have, such as ".rw".
        inputs: Files and folders that are read.

    Returns:
        The path without links.

    Raises:
        InputError: As for a folder; or the name has another ending, or something is there already.
    """
    if path.suffix.lower() != ending:
        raise InputError(f"output {path} is no {ending} name; {MEND}")
    with _refused(path):
        claimed = _without_links(path)
        if claimed.exists():
            kind = "an input" if any(claimed == one.resolve() for one in inputs) else "there already"
            raise InputError(f"output {path} is {kind}, expected a new name; {MEND}")
        _try_place(claimed)
        clear_leftovers(claimed.parent, glob.escape(claimed.name))
    return claimed


def claim_new_folder(path: Path) -> Path:
    """Refuse a folder that could not be written, or that is there and not empty.

    Returns:
        The path without links.

    Raises:
        InputError: As for ``claim_folder``; or something is in it.
    """
    claimed = claim_folder(path)
    if claimed.exists() and any(claimed.iterdir()):
        raise InputError(f"output folder {path} is not empty; {MEND}")
    return claimed


def claim_images(path: Path) -> Path:
    """Refuse a path where neither one image of many could be written nor, if it is no .png name, a folder of them.

    A folder whose writing was killed may be written again.

    Returns:
        The path without links.

    Raises:
        InputError: As for an image or a folder; or the folder is not empty, or its name is that of a file.
    """
    if is_png(path):
        return claim_image(path)
    if path.suffix.lower() in Image.registered_extensions():
        raise InputError(
            f"output {path} is no .png name nor a folder's, and images are written as PNG; {MEND}"
        )
    claimed = claim_folder(path)
    if claimed.exists() and any(claimed.iterdir()) and not (claimed / UNFINISHED).exists():
        raise InputError(f"output folder {path} is not empty; name a new one, or a .png")
    return claimed


def is_png(path: Path) -> bool:
    """Whether a path is one of an image, and not of a folder of images."""
    return path.suffix.lower() == ".png"


def save_images(images: Tensor, folder: Path) -> None:
    """Write images to a folder, ``00000.png`` and so on, all of them or none.

    Args:
        images: uint8 ``(B, C, H, W)``, C 1 or 3.
        folder: New, empty, or one whose writing was killed.
    """
    from rasterwise.images import save_image, to_pil

    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    try:
        (folder / UNFINISHED).touch()
        for index, image in enumerate(images):
            save_image(to_pil(image), folder / f"{index:05d}.png")
    except BaseException:
        _clear(folder)
        if made:
            with contextlib.suppress(OSError):  # somebody else has put a file there
                folder.rmdir()
        raise
    (folder / UNFINISHED).unlink()


def _clear(folder: Path) -> None:
    """Remove the images of a folder that is unfinished."""
    if (folder / UNFINISHED).exists():
        clear_leftovers(folder)
        for path in folder.iterdir():
            if re.fullmatch(r"\d{5,}\.png", path.name):
                path.unlink()
        (folder / UNFINISHED).unlink()


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Say in one line what the system refuses to do with an output."""
    try:
        yield
    except OSError as error:
        raise InputError(f"output {path} cannot be written ({error.strerror}); {MEND}") from None


def _without_links(path: Path) -> Path:
    for part in (path, *path.parents):
        if part.is_symlink() and not part.exists():
            target = os.readlink(part)
            raise InputError(
                f"output {path} cannot be written, since {part} links to {target}, which is not there; {MEND}"
            )
    return path.resolve()


def _try_place(path: Path) -> None:
    """Write to the nearest folder of a path that is there: it must be one, and take a file and the new names."""
    there, new = path, [hidden(path, "replaced").name]
    while not there.is_dir():
        if there.exists() and there != path:
            raise InputError(f"output {path} cannot be written, since {there} is a file; {MEND}")
        new.append(there.name)
        there = there.parent
    longest = os.pathconf(there, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if any(len(os.fsencode(name)) > longest for name in new):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    with tempfile.TemporaryFile(dir=there):
        pass
