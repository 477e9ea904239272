"""Captions: of the images in a folder, and in a column of a dataset; and which one an image gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rasterwise.errors import InputError
from rasterwise.files import read_json_lines

CAPTION_NAMES = ("caption", "captions", "text", "description", "prompt")
"""Names of columns and keys that captions are looked for under, in this order."""
METADATA_NAME = "metadata.jsonl"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class CaptionedImage:
    """An image file and its captions.

    Attributes:
        image: The file.
        captions: One or more.
        where: The file, and the line, that the captions are from; for messages.
    """

    image: Path
    captions: tuple[str, ...]
    where: str


def captions_in(value: object, where: str) -> tuple[str, ...]:
    """The captions that a column or key holds: one text, or several.

    Args:
        value: A string or a sequence of strings.
        where: Of the row, for messages.

    Raises:
        InputError: There is none, one is empty, or one is no text.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence | np.ndarray) or isinstance(texts, bytes):
        raise InputError(
            f"{where}: captions are a {type(value).__name__}, expected a text or a list of texts"
        )
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{where}: a caption is a {type(text).__name__}, expected a text")
        if not text.strip():
            raise InputError(f"{where}: a caption is empty; write one, or remove the row")
    if not len(texts):
        raise InputError(f"{where}: has no caption; write one, or remove the row")
    return tuple(texts)


def caption_name(names: Iterable[str], chosen: str | None, where: str) -> str:
    """Which of some columns or keys holds captions.

    Args:
        names: All there are.
        chosen: The one that the user named.
        where: For messages.

    Raises:
        InputError: The one that was named is not there, or none has a name that captions go by.
    """
    names = tuple(names)
    found = next((name for name in ((chosen,) if chosen else CAPTION_NAMES) if name in names), None)
    if found is None:
        expected = repr(chosen) if chosen else f"one of {', '.join(CAPTION_NAMES)}"
        raise InputError(f"{where}: has no captions under {expected}; it has {', '.join(names) or 'nothing'}")
    return found


def chosen_caption(captions: Sequence[str], *, seed: int, epoch: int, index: int) -> str:
    """The caption that an image gets in an epoch.

    Each of an image's k captions is drawn once in every k epochs, in an order that the seed decides, so that none
    is ever dropped and all weigh the same.

    Args:
        captions: Of the image, in the order of the data.
        seed: Of the run.
        epoch: From 0.
        index: Of the image in its split.
    """
    cycle, turn = divmod(epoch, len(captions))
    order = np.random.default_rng([seed, index, cycle]).permutation(len(captions))
    return captions[order[turn]]


def captioned_folder(folder: Path, key: str | None = None) -> list[CaptionedImage]:
    """The images of a folder and of those in it, with captions.

    Captions stand in ``metadata.jsonl``, one object a line with ``file_name`` and a key for the caption or a list
    of captions; several lines may be about one image. Where there is no such file, they stand beside each
    ``name.png`` in ``name.txt``, one a line.

    Args:
        folder: Where.
        key: Of captions in metadata.jsonl; found by its name unless given.

    Returns:
        By file name, so that the order is the same on every machine.

    Raises:
        InputError: An image has no caption, a line names no image, or there are no images.
    """
    files = [
        path for path in sorted(folder.rglob("*")) if not path.relative_to(folder).as_posix().startswith(".")
    ]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise InputError(f"folder {str(folder)!r} has no images ({', '.join(IMAGE_SUFFIXES)})")
    tables = [path for path in files if path.name == METADATA_NAME]
    if not tables:
        return [_with_text_file(image) for image in images]
    found: dict[Path, CaptionedImage] = {}
    for table in tables:
        for number, row in read_json_lines(table):
            one = _from_line(table, number, row, key)
            before = found[one.image].captions if one.image in found else ()
            found[one.image] = CaptionedImage(one.image, before + one.captions, one.where)
    for image in images:
        if image not in found:
            raise InputError(f"{image} is in no {METADATA_NAME}; add a line for it, or remove it")
    return [found[image] for image in images]


def _with_text_file(image: Path) -> CaptionedImage:
    path = image.with_suffix(".txt")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(
            f"{image} has no caption: expected {path.name} beside it, or {METADATA_NAME}"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); save it as such") from None
    captions = [line.strip() for line in lines if line.strip()]
    return CaptionedImage(image, captions_in(captions, str(path)), str(path))


def _from_line(table: Path, number: int, row: dict[str, object], key: str | None) -> CaptionedImage:
    where = f"{table}:{number}"
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: has no file_name; expected the image's path from {METADATA_NAME}")
    image = table.parent / name
    if not image.is_file():
        raise InputError(f"{where}: image {name!r} does not exist in {table.parent}")
    if image.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{where}: {name!r} is no image ({', '.join(IMAGE_SUFFIXES)})")
    return CaptionedImage(image, captions_in(row[caption_name(row, key, where)], where), where)
