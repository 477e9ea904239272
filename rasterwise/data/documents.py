"""Interleaved documents as they are stored: JSON lines, or rows of parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.files import read_json_lines
from rasterwise.images import decode_image, open_image, to_pil

CONTENT_NAME = "content"
DOCUMENT_SUFFIXES = (".jsonl", ".parquet")
ROWS_READ = 64
"""Rows of a parquet file that are read at once: their images lie in memory as files' bytes."""

StoredImage = Path | bytes | Tensor
"""An image file, its bytes, or pixels: uint8 ``(C, H, W)``."""


@dataclass(frozen=True, eq=False)
class StoredDocument:
    """A document as it is stored.

    Attributes:
        content: Texts and images in reading order.
        where: The file, and the line or row, that it is from; for messages.
    """

    content: tuple[str | StoredImage, ...]
    where: str

    @property
    def texts(self) -> tuple[str, ...]:
        """Its texts: what a text tokenizer is trained on."""
        return tuple(part for part in self.content if isinstance(part, str))


def open_stored(image: StoredImage, where: str) -> Image.Image:
    """A stored image, decoded; InputError names where it is from if it does not decode."""
    if isinstance(image, Tensor):
        return to_pil(image)
    try:
        if isinstance(image, Path):
            return open_image(image)
        return decode_image(image)
    except Exception as error:  # Pillow raises all kinds
        named = str(error) if isinstance(image, Path) else f"an image does not decode ({error})"
        raise InputError(f"{where}: {named}") from None


def document_in(content: object, where: str, folder: Path) -> StoredDocument:
    """A document from what its ``content`` holds.

    Args:
        content: A list of ``{"type": "text", "text": …}`` and ``{"type": "image", "image": …}`` in any order and
            number. An image is a path, the bytes of a file, or the mapping of both that the library datasets
            writes. Keys without a value, which parquet files need, are passed over.
        where: For messages.
        folder: What paths start from.

    Raises:
        InputError: The content is another, or an image file does not exist.
    """
    expected = f"expected a list of texts and images as its {CONTENT_NAME}"
    if not isinstance(content, Sequence) or isinstance(content, str | bytes):
        raise InputError(f"{where}: {CONTENT_NAME} is a {type(content).__name__}, {expected}")
    if not content:
        raise InputError(f"{where}: {CONTENT_NAME} is empty, {expected}")
    parts = [_part(part, f"{where}: {CONTENT_NAME}[{n}]", folder) for n, part in enumerate(content)]
    return StoredDocument(tuple(parts), where)


def read_documents(path: Path) -> Iterator[StoredDocument]:
    """The documents of a file of JSON lines or of a parquet file, in order.

    Paths of images start from the file's folder.

    Raises:
        InputError: The file is another one, or damaged; a document is not as ``document_in`` expects, and the
            message names its line or row.
    """
    if path.suffix == ".jsonl":
        for number, row in read_json_lines(path):
            where = f"{path}:{number}"
            if CONTENT_NAME not in row:
                raise InputError(f"{where}: has no {CONTENT_NAME}; it has {', '.join(row) or 'nothing'}")
            yield document_in(row[CONTENT_NAME], where, path.parent)
    elif path.suffix == ".parquet":
        yield from _parquet_documents(path)
    else:
        raise InputError(f"{path} holds no documents; expected {' or '.join(DOCUMENT_SUFFIXES)}")


def _parquet_documents(path: Path) -> Iterator[StoredDocument]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            if CONTENT_NAME not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names)
                raise InputError(f"{path}: has no column {CONTENT_NAME}; it has {names}")
            number = 0
            for batch in file.iter_batches(ROWS_READ, columns=[CONTENT_NAME]):
                for content in batch[CONTENT_NAME].to_pylist():
                    yield document_in(content, f"{path} row {number}", path.parent)
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is no whole parquet file ({str(error).splitlines()[0]})") from None


def _part(part: object, where: str, folder: Path) -> str | StoredImage:
    if not isinstance(part, Mapping):
        raise InputError(f"{where} is a {type(part).__name__}, expected an object with a type")
    given = {key: value for key, value in part.items() if value is not None}
    kind = given.pop("type", None)
    if kind not in ("text", "image"):
        raise InputError(f"{where} has type {kind!r}, expected 'text' or 'image'")
    if set(given) != {kind}:
        found = ", ".join(map(repr, given)) or "nothing"
        raise InputError(f"{where} of type {kind!r} has {found}, expected {kind!r} alone beside the type")
    value = given[kind]
    if kind == "image":
        return _image(value, where, folder)
    if not isinstance(value, str):
        raise InputError(f"{where} has a text that is a {type(value).__name__}, expected a string")
    return value


def _image(value: object, where: str, folder: Path) -> StoredImage:
    if isinstance(value, Mapping):
        content = value.get("bytes")
        value = value.get("path") if content is None else content
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise InputError(f"{where} has an image that is a {type(value).__name__}, expected a path or bytes")
    path = folder / value
    if not path.is_file():
        raise InputError(f"{where}: image {value!r} does not exist in {folder}")
    return path
