"""The file format: a header and an index under one checksum, then the pictures' bytes.

A file begins with the magic "RWC" and the format's version. The header names the model and the tokenizer by their
fingerprints, and the environment. The index lists sections of pictures of one size, and of each section its streams:
the number of bytes and a CRC-32, of the symbols of the stream's pictures, or of its bytes where they are PNG files. A
large picture has a stream of its own, and small ones share one. All numbers that may be large are of variable length,
little end first.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rasterwise.compression.environment import Environment
from rasterwise.errors import InputError

MAGIC, VERSION = b"RWC", 2
HEADER = struct.Struct("<3sB4s4sB")
"""Magic, version, fingerprints of model and tokenizer, flags."""
LOSSLESS, ORDERED, NAMED = 1, 2, 4
MOST_PIXELS = 2**14


@dataclass(frozen=True)
class Stream:
    """Some pictures of a section.

    Attributes:
        content: What the range coder gave, or PNG files.
        checksum: CRC-32 of the pictures' symbols, one picture after the other, or of the content.
        is_png: Which of the two.
        whole: False where the file ends before the stream does.
    """

    content: bytes
    checksum: int
    is_png: bool
    whole: bool = True


@dataclass(frozen=True)
class Section:
    """Pictures of one size.

    Attributes:
        height: Of their images.
        width: Of their images.
        count: How many.
        together: Pictures of a stream; the last has what is left.
        streams: In the order of the pictures. One of PNG files in between leaves rows of a batch that nobody reads. In
            a section of height 0 all are PNG files.
    """

    height: int
    width: int
    count: int
    together: int
    streams: list[Stream]

    def pictures(self, stream: int) -> range:
        """Which pictures of the section a stream holds."""
        return range(stream * self.together, min(self.count, (stream + 1) * self.together))


@dataclass(frozen=True)
class Container:
    """What a file holds.

    Attributes:
        model: The first 4 bytes of its fingerprint.
        tokenizer: The first 4 bytes of its fingerprint.
        environment: Where it was compressed.
        lossless: Whether the pictures come back as they were, or as the tokenizer keeps them.
        batch_size: Pictures of a section that are decoded at once.
        sections: The pictures.
        order: The place of each picture, as the sections list them, among those that were given.
        names: Of the pictures in the order that they were given in; empty for none.
    """

    model: bytes
    tokenizer: bytes
    environment: Environment
    lossless: bool
    batch_size: int
    sections: list[Section]
    order: list[int]
    names: list[str] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """The file."""
        ordered = self.order != list(range(len(self.order)))
        flags = LOSSLESS * self.lossless + ORDERED * ordered + NAMED * bool(self.names)
        head = bytearray(
            HEADER.pack(MAGIC, VERSION, self.model, self.tokenizer, flags) + _varint(self.environment.threads)
        )
        text = self.environment.text.encode()
        head += bytes([len(text)]) + text + _varint(self.batch_size) + _varint(len(self.sections))
        for section in self.sections:
            for number in (section.height, section.width, section.count, section.together):
                head += _varint(number)
            for stream in section.streams:
                head += _varint(2 * len(stream.content) + stream.is_png)
                head += struct.pack("<I", stream.checksum)
        if ordered:
            head += b"".join(map(_varint, self.order))
        if self.names:
            packed = zlib.compress(json.dumps(self.names, ensure_ascii=False).encode(), 9)
            head += _varint(len(packed)) + packed
        head += struct.pack("<I", zlib.crc32(head))
        return bytes(head) + b"".join(one.content for section in self.sections for one in section.streams)

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
        _, _, model, tokenizer, flags = HEADER.unpack_from(content)
        reader = _Reader(content, HEADER.size)
        threads = reader.varint()
        environment = Environment.parsed(reader.take(reader.take(1)[0]).decode(), threads)
        batch_size, shapes, entries = reader.varint(), [], []
        for _ in range(reader.varint()):
            height, width, count, together = (reader.varint() for _ in range(4))
            if max(height, width) > MOST_PIXELS or not (together and batch_size):
                raise ValueError("a size that nothing has")
            shapes.append((height, width, count, together))
            entries.append(
                [
                    (reader.varint(), *struct.unpack("<I", reader.take(4)))
                    for _ in range(-(-count // together))
                ]
            )
        total = sum(count for _, _, count, _ in shapes)
        order = [reader.varint() for _ in range(total)] if flags & ORDERED else []
        names = json.loads(zlib.decompress(reader.take(reader.varint()))) if flags & NAMED else []
        end = reader.at
        if struct.unpack("<I", reader.take(4)) != (zlib.crc32(content[:end]),):
            raise ValueError("checksum")
        order = order or list(range(total))
        named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if sorted(order) != list(range(total)) or not named or (names and len(names) != total):
            raise ValueError("order or names")
        sections, at = [], reader.at
        for shape, listed in zip(shapes, entries, strict=True):
            streams = []
            for size, checksum in listed:
                part = content[at : at + size // 2]
                streams.append(Stream(part, checksum, bool(size % 2), len(part) == size // 2))
                at += size // 2
            sections.append(Section(*shape, streams))
        return cls(model, tokenizer, environment, bool(flags & LOSSLESS), batch_size, sections, order, names)


def joined(files: Sequence[bytes]) -> bytes:
    """Several files as one stream, each with its length before it."""
    return b"".join(_varint(len(file)) + file for file in files)


def separated(stream: bytes) -> list[bytes]:
    """The inverse of ``joined``."""
    reader, files = _Reader(stream, 0), []
    while reader.at < len(stream):
        files.append(reader.take(reader.varint()))
    return files


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
