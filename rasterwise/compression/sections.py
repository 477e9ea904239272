"""Pictures of one size to a section of a file and back."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rasterwise.compression.container import Section, Stream, joined, separated
from rasterwise.compression.pictures import Picture, opened_png, png_of
from rasterwise.compression.streams import StreamDecoder, StreamEncoder, grids_per_stream
from rasterwise.images import to_pil
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import evaluating
from rasterwise.tokenizers.image import ImageTokenizer

UNDECODED = "did not decode again"
"""Why a picture is a PNG file that the model was asked for."""


@dataclass
class Tally:
    """What sections add up to."""

    bits: float = 0.0
    coded_bytes: int = 0
    png: Counter[str] = field(default_factory=Counter)
    png_bytes: int = 0
    lossless: bool = True


@torch.no_grad()
def encode_section(
    tokenizer: ImageTokenizer,
    model: AutoregressiveModel,
    pictures: Sequence[Picture],
    *,
    batch_size: int,
    check: bool,
    tally: Tally,
    done: Callable[[float], None],
) -> Section:
    """Encode pictures of one size, which the model has.

    Args:
        tokenizer: Turns them into symbols.
        model: The distribution of the symbols.
        pictures: One or more, with pixels.
        batch_size: Pictures that are coded at once.
        check: Decode what was coded; what does not come back is stored as PNG.
        tally: What sections add up to, to which this one is added.
        done: Is given how many pictures are ready, after each batch.
    """
    together = min(grids_per_stream(model.grid), len(pictures))
    encoder, bits, kept = StreamEncoder(model, together), [], []
    for rows in _batches(len(pictures), batch_size):
        batch = [pictures[row].pixels for row in rows]
        pixels = torch.stack([one for one in batch if one is not None]).to(model.device)
        with evaluating(tokenizer):
            symbols = tokenizer.encode(pixels)
            tally.lossless &= torch.equal(tokenizer.decode(symbols), pixels)
        bits.append(encoder.encode(symbols))
        kept.append(compact(symbols, model.grid.levels))
        done(rows.stop / 2 if check else rows.stop)
    width, height = pictures[0].image.size
    section = Section(height, width, len(pictures), together, [])
    streams, symbols_of, bits_of = encoder.streams(), np.concatenate(kept), torch.cat(bits)
    right = np.ones(len(pictures), bool)
    if check:
        decoder = StreamDecoder(model, streams, together)
        for rows in _batches(len(pictures), batch_size):
            again = compact(decoder.decode(len(rows)), model.grid.levels)
            right[rows] = (again == symbols_of[rows]).reshape(len(rows), -1).all(1)
            done((len(pictures) + rows.stop) / 2)
    for place, stream in enumerate(streams):
        rows = section.pictures(place)
        if right[rows].all():
            section.streams.append(Stream(stream, zlib.crc32(symbols_of[rows].tobytes()), False))
            tally.bits += bits_of[rows].sum().item()
            tally.coded_bytes += len(stream)
        else:
            section.streams.append(png_stream([pictures[row] for row in rows], UNDECODED, tally))
    return section


@torch.no_grad()
def decode_section(
    tokenizer: ImageTokenizer,
    model: AutoregressiveModel | None,
    section: Section,
    *,
    batch_size: int,
    done: Callable[[float], None],
) -> list[Image.Image | str]:
    """The images of a section, or what is wrong with each.

    Args:
        tokenizer: The one that encoded it.
        model: The one that encoded it; None where all its streams are PNG files.
        section: Some of its streams may be damaged.
        batch_size: The one that it was encoded with.
        done: Is given how many images are ready, after each batch.
    """
    images: list[Image.Image | str] = [""] * section.count
    streams = [one.content if one.whole and not one.is_png else None for one in section.streams]
    if model is not None and any(stream is not None for stream in streams):
        decoder, checksums = StreamDecoder(model, streams, section.together), [0] * len(streams)
        for rows in _batches(section.count, batch_size):
            symbols = decoder.decode(len(rows))
            with evaluating(tokenizer):
                pixels = tokenizer.decode(symbols.to(model.device)).cpu()
            for row, values, image in zip(rows, compact(symbols, model.grid.levels), pixels, strict=True):
                stream = row // section.together
                checksums[stream] = zlib.crc32(values.tobytes(), checksums[stream])
                images[row] = to_pil(image)
            done(rows.stop)
    for place, stored in enumerate(section.streams):
        rows = section.pictures(place)
        if not stored.whole:
            found: Sequence[Image.Image | str] = ["the file ends before it"] * len(rows)
        elif stored.is_png:
            found = _opened(stored, len(rows))
        elif checksums[place] != stored.checksum:
            found = ["its checksum differs"] * len(rows)
        else:
            continue
        images[rows.start : rows.stop] = found
    return images


def compact(symbols: Tensor, levels: int) -> np.ndarray:
    """Symbols, each in as few bytes as K levels need."""
    dtype = "<u1" if levels <= 2**8 else "<u2" if levels <= 2**16 else "<u4"
    return np.ascontiguousarray(symbols.cpu().numpy().astype(dtype))


def _batches(count: int, batch_size: int) -> Iterator[range]:
    return (range(start, min(count, start + batch_size)) for start in range(0, count, batch_size))


def png_stream(pictures: Sequence[Picture], reason: str, tally: Tally) -> Stream:
    """Pictures as PNG files."""
    content = joined([png_of(one.image) for one in pictures])
    tally.png[reason] += len(pictures)
    tally.png_bytes += len(content)
    return Stream(content, zlib.crc32(content), True)


def _opened(stream: Stream, count: int) -> list[Image.Image | str]:
    """The pictures of a stream of PNG files, or what is wrong with each."""
    if zlib.crc32(stream.content) != stream.checksum:
        return ["its checksum differs"] * count
    found: list[Image.Image | str] = []
    for file in separated(stream.content):
        try:
            found.append(opened_png(file))
        except Exception as error:  # whatever Pillow raises for a file that somebody else has made
            found.append(f"its PNG file does not decode ({error})")
    return (found + ["its PNG file is missing"] * count)[:count]
