"""The file format: a header and an index under one checksum, then the pictures' bytes.

A file begins with the magic "RWC" and the format's version. The header names the model and the tokenizer by their
fingerprints, and the environment. The index lists blocks of pictures of one size, which are decoded together, and of
each picture the number of its bytes and a CRC-32: of its symbols, or of its bytes where they are a PNG file. All
numbers that may be large are of variable length, little end first.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from rasterwise.compression.environment import Environment
from rasterwise.errors import InputError

MAGIC, VERSION = b"RWC", 1
HEADER = struct.Struct("<3sB6s4sBH")
"""Magic, version, fingerprints of model and tokenizer, flags, threads."""
LOSSLESS, ORDERED, NAMED = 1, 2, 4
MOST_PIXELS = 2**14


@dataclass(frozen=True)
class Stored:
    """A picture in a file.

    Attributes:
        content: Its bytes: those that the range coder gave, or a PNG file.
        checksum: CRC-32 of its symbols, or of the PNG file.
        is_png: Which of the two.
        whole: False where the file ends before the picture does.
    """

    content: bytes
    checksum: int
    is_png: bool
    whole: bool = True


@dataclass(frozen=True)
class Block:
    """Pictures that are decoded together.

    Attributes:
        height: Of their images.
        width: Of their images.
        pictures: In the order of the batch; a PNG file in between is a row of the batch that nobody reads. In a
            block of height 0 all are PNG files.
    """

    height: int
    width: int
    pictures: list[Stored]


@dataclass(frozen=True)
class Container:
    """What a file holds.

    Attributes:
        model: The first 6 bytes of its fingerprint.
        tokenizer: The first 4 bytes of its fingerprint.
        environment: Where it was compressed.
        lossless: Whether the pictures come back as they were, or as the tokenizer keeps them.
        blocks: The pictures.
        order: The place of each picture, as the blocks list them, among those that were given.
        names: Of the pictures in the order that they were given in; empty for none.
    """

    model: bytes
    tokenizer: bytes
    environment: Environment
    lossless: bool
    blocks: list[Block]
    order: list[int]
    names: list[str] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """The file."""
        ordered = self.order != list(range(len(self.order)))
        flags = LOSSLESS * self.lossless + ORDERED * ordered + NAMED * bool(self.names)
        head = bytearray(
            HEADER.pack(MAGIC, VERSION, self.model, self.tokenizer, flags, self.environment.threads)
        )
        text = self.environment.text.encode()
        head += bytes([len(text)]) + text + _varint(len(self.blocks))
        for block in self.blocks:
            head += _varint(len(block.pictures)) + _varint(block.height) + _varint(block.width)
            for picture in block.pictures:
                head += _varint(2 * len(picture.content) + picture.is_png)
                head += struct.pack("<I", picture.checksum)
        if ordered:
            head += b"".join(map(_varint, self.order))
        if self.names:
            packed = zlib.compress(json.dumps(self.names, ensure_ascii=False).encode(), 9)
            head += _varint(len(packed)) + packed
        head += struct.pack("<I", zlib.crc32(head))
        return bytes(head) + b"".join(one.content for block in self.blocks for one in block.pictures)

    @classmethod
    def from_bytes(cls, content: bytes) -> Container:
        """Read a file; pictures behind its end are not ``whole``.

        Raises:
            InputError: It is no such file, of another version of the format, or its header or index is damaged.
        """
        if content[:3] != MAGIC:
            raise InputError("it is no file of rasterwise compress")
        if len(content) > 3 and content[3] != VERSION:
            raise InputError(
                f"its format is version {content[3]}, expected {VERSION}; take the release that wrote it"
            )
        try:
            return cls._parsed(content)
        except (IndexError, ValueError, struct.error, zlib.error):
            raise InputError(
                "its header or index is damaged or cut, so that no picture can be found"
            ) from None

    @classmethod
    def _parsed(cls, content: bytes) -> Container:
        _, _, model, tokenizer, flags, threads = HEADER.unpack_from(content)
        reader = _Reader(content, HEADER.size)
        environment = Environment.parsed(reader.take(reader.take(1)[0]).decode(), threads)
        shapes, entries = [], []
        for _ in range(reader.varint()):
            count, height, width = reader.varint(), reader.varint(), reader.varint()
            if max(height, width) > MOST_PIXELS:
                raise ValueError("a size that nothing has")
            shapes.append((count, height, width))
            entries.append([(reader.varint(), *struct.unpack("<I", reader.take(4))) for _ in range(count)])
        total = sum(count for count, _, _ in shapes)
        order = [reader.varint() for _ in range(total)] if flags & ORDERED else list(range(total))
        names = json.loads(zlib.decompress(reader.take(reader.varint()))) if flags & NAMED else []
        end = reader.at
        if struct.unpack("<I", reader.take(4)) != (zlib.crc32(content[:end]),):
            raise ValueError("checksum")
        named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if sorted(order) != list(range(total)) or not named or (names and len(names) != total):
            raise ValueError("order or names")
        blocks, at = [], reader.at
        for (_, height, width), listed in zip(shapes, entries, strict=True):
            pictures = []
            for size, checksum in listed:
                part = content[at : at + size // 2]
                pictures.append(Stored(part, checksum, bool(size % 2), len(part) == size // 2))
                at += size // 2
            blocks.append(Block(height, width, pictures))
        return cls(model, tokenizer, environment, bool(flags & LOSSLESS), blocks, order, names)


def checksum_of(symbols: Tensor, levels: int) -> int:
    """CRC-32 of a grid of symbols, int64 ``(C, H, W)``, each in as few bytes as K levels need."""
    dtype = "<u1" if levels <= 2**8 else "<u2" if levels <= 2**16 else "<u4"
    return zlib.crc32(np.ascontiguousarray(symbols.cpu().numpy().astype(dtype)).tobytes())


def read_compressed(path: Path) -> bytes:
    """The bytes of a file; InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}), expected a file of rasterwise compress"
        ) from None


class _Reader:
    """Reads bytes one after the other; IndexError behind the end."""

    def __init__(self, content: bytes, at: int) -> None:
        self.content, self.at = content, at

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.content):
            raise IndexError
        self.at += count
        return self.content[self.at - count : self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 56:
                raise ValueError("a number that is too long")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
