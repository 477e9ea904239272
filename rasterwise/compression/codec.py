"""Pictures to a file and back, by a tokenizer and a model of its symbols."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from rasterwise.compression.blocks import decode_block, encode_block
from rasterwise.compression.container import Block, Container, Stored, checksum_of
from rasterwise.compression.environment import computing_with, environment_here
from rasterwise.compression.pictures import Picture, opened_png, pictures_of, png_of
from rasterwise.errors import InputError
from rasterwise.images import Images, to_pil
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import evaluating
from rasterwise.tokenizers.image import ImageTokenizer

UNDECODED = "did not decode again"
"""Why a picture is a PNG file that the model was asked for."""

Progress = Callable[[float, int], None]


@dataclass(frozen=True)
class Compressed:
    """Pictures in one file.

    Attributes:
        content: The file.
        pictures: How many.
        subpixels: Of all of them.
        model_bits: −log2 p of the pictures that the model coded, all together.
        model_bytes: What the range coder made of these.
        png: How many pictures are stored as PNG files, by the reason.
        png_bytes: Of these.
        lossless: Whether the pictures come back pixel for pixel, or as the tokenizer keeps them.
    """

    content: bytes
    pictures: int
    subpixels: int
    model_bits: float
    model_bytes: int
    png: dict[str, int]
    png_bytes: int
    lossless: bool

    @property
    def bits_per_subpixel(self) -> float:
        """Of the whole file."""
        return 8 * len(self.content) / self.subpixels


@dataclass(frozen=True)
class Decompressed:
    """What a file gave.

    Attributes:
        images: In the order that they were given in; None for one that is damaged.
        names: Theirs; empty where the file has none.
        damaged: What is wrong with each damaged picture, by its place.
        lossless: As for ``Compressed``.
        differences: What of this machine is another than where the file was written; empty where nothing is.
    """

    images: list[Image.Image | None]
    names: list[str]
    damaged: dict[int, str]
    lossless: bool
    differences: str = ""


@dataclass
class _Tally:
    """What blocks add up to."""

    bits: float = 0.0
    coded_bytes: int = 0
    png: Counter[str] = field(default_factory=Counter)
    png_bytes: int = 0
    lossless: bool = True


class Codec:
    """Compresses pictures with the probabilities of a model.

    The encoder goes through the pictures with the very decoder that draws new ones, in the same batches, precision and
    threads as the decompressor will. Probabilities that differ in their last bit decode to noise: a file decodes on
    machines of the same class with the same versions, and a checksum a picture proves that it has.

    Args:
        tokenizer: Turns images into symbols and back.
        model: The distribution of the symbols.
    """

    def __init__(self, tokenizer: ImageTokenizer, model: AutoregressiveModel) -> None:
        self.tokenizer, self.model = tokenizer, model
        self.image_shape = tokenizer.image_shape(model.grid)
        self.sized = {self.image_shape[1:]: model}

    def compress(
        self,
        images: Images,
        *,
        names: Sequence[str] = (),
        batch_size: int = 64,
        check: bool = True,
        progress: Progress | None = None,
    ) -> Compressed:
        """As ``ImagePipeline.compress``; ``names`` are kept in the file.

        Raises:
            InputError: There are no images, or one that neither the model nor PNG holds.
        """
        pictures = pictures_of(images, self.image_shape[0])
        if not pictures:
            raise InputError("no images were given, expected at least one")
        if names and len(names) != len(pictures):
            raise InputError(f"{len(names)} names for {len(pictures)} images")
        groups: dict[tuple[int, int], list[int]] = {}
        reasons = {}
        for place, picture in enumerate(pictures):
            reason = picture.reason or self._why_no_model(picture.image.size[::-1])
            if reason:
                reasons[place] = reason
            else:
                groups.setdefault(picture.image.size[::-1], []).append(place)
        tally, blocks, order = _Tally(), [], []
        for size, places in groups.items():
            for start in range(0, len(places), batch_size):
                part = places[start : start + batch_size]
                blocks.append(self._block(size, [pictures[place] for place in part], check, tally))
                order += part
                if progress:
                    progress(len(order), len(pictures))
        if reasons:
            stored = [_png(pictures[place], reason, tally) for place, reason in reasons.items()]
            blocks.append(Block(0, 0, stored))
            order += reasons
        container = Container(
            *self._fingerprints(),
            environment_here(self.model.device),
            tally.lossless,
            blocks,
            order,
            list(names),
        )
        return Compressed(
            container.to_bytes(),
            len(pictures),
            sum(one.image.width * one.image.height * len(one.image.getbands()) for one in pictures),
            tally.bits,
            tally.coded_bytes,
            dict(tally.png),
            tally.png_bytes,
            tally.lossless,
        )

    def decompress(self, content: bytes, *, progress: Progress | None = None) -> Decompressed:
        """The pictures of a file; those that are damaged are named, and the others decode.

        Raises:
            InputError: It is no file of this codec, its header is damaged, it was compressed with another model or
                tokenizer, or no picture of it decodes on this machine, which differs from the one that wrote it.
        """
        container = Container.from_bytes(content)
        for what, there, here in zip(
            ("model", "tokenizer"), (container.model, container.tokenizer), self._fingerprints(), strict=True
        ):
            if there != here:
                raise InputError(
                    f"it was compressed with {what} {there.hex()}…, and this one is {here.hex()}…; open the {what} "
                    "that compressed it"
                )
        differences = container.environment.differences(environment_here(self.model.device))
        found: list[Image.Image | str] = []
        threads = (
            container.environment.threads if self.model.device.type == "cpu" else torch.get_num_threads()
        )
        with computing_with(max(1, threads)):
            for block in container.blocks:
                found += self._images(block)
                if progress:
                    progress(len(found), len(container.order))
        coded = [
            isinstance(one, str)
            for one, stored in zip(found, (p for b in container.blocks for p in b.pictures), strict=True)
            if not stored.is_png
        ]
        if coded and all(coded) and differences:
            raise InputError(
                f"none of its pictures decodes here; it was compressed elsewhere: {differences}. Decompress it on a "
                "machine of that kind with those versions"
            )
        images: list[Image.Image | None] = [None] * len(found)
        damaged = {}
        for place, one in zip(container.order, found, strict=True):
            if isinstance(one, str):
                damaged[place] = one
            else:
                images[place] = one
        damaged = {place: damaged[place] for place in sorted(damaged)}
        return Decompressed(images, container.names, damaged, container.lossless, differences)

    def _fingerprints(self) -> tuple[bytes, bytes]:
        return bytes.fromhex(self.model.fingerprint[:12]), bytes.fromhex(self.tokenizer.fingerprint[:8])

    def _why_no_model(self, size: tuple[int, int]) -> str:
        """Why images of a height and width have no model; empty where they have one."""
        if size in self.sized:
            return ""
        try:
            grid = self.tokenizer.grid(self.image_shape[0], *size)
            self.sized[size] = self.model.at_size(grid.height, grid.width)
        except InputError:
            height, width = self.image_shape[1:]
            return f"another size than {width}×{height}"
        return ""

    @torch.no_grad()
    def _block(self, size: tuple[int, int], pictures: list[Picture], check: bool, tally: _Tally) -> Block:
        pixels = torch.stack([one.pixels for one in pictures if one.pixels is not None]).to(self.model.device)
        model = self.sized[size]
        with evaluating(self.tokenizer):
            symbols = self.tokenizer.encode(pixels)
            tally.lossless &= torch.equal(self.tokenizer.decode(symbols), pixels)
        encoded = encode_block(model, symbols)
        right = torch.ones(len(symbols), dtype=torch.bool)
        if check:
            right = (decode_block(model, encoded.streams) == symbols.cpu()).flatten(1).all(1)
        stored = []
        for row, picture in enumerate(pictures):
            if right[row]:
                stream = encoded.streams[row]
                stored.append(Stored(stream, checksum_of(symbols[row], model.grid.levels), False))
                tally.bits += encoded.bits[row].item()
                tally.coded_bytes += len(stream)
            else:
                stored.append(_png(picture, UNDECODED, tally))
        return Block(*size, stored)

    def _images(self, block: Block) -> list[Image.Image | str]:
        """The images of a block, or what is wrong with each."""
        streams = [one.content if one.whole and not one.is_png else None for one in block.pictures]
        symbols = images = None
        if any(stream is not None for stream in streams):
            size = (block.height, block.width)
            if self._why_no_model(size):
                raise InputError(
                    f"it has images of {block.width}×{block.height}, which this model has none of"
                )
            model = self.sized[size]
            symbols = decode_block(model, streams)
            with torch.no_grad(), evaluating(self.tokenizer):
                images = self.tokenizer.decode(symbols.to(self.model.device)).cpu()
        return [
            _restored(one, row, symbols, images, self.model.grid.levels)
            for row, one in enumerate(block.pictures)
        ]


def _restored(
    stored: Stored, row: int, symbols: Tensor | None, images: Tensor | None, levels: int
) -> Image.Image | str:
    """One picture of a block, or what is wrong with it."""
    if not stored.whole:
        return "the file ends before it"
    if stored.is_png:
        if zlib.crc32(stored.content) != stored.checksum:
            return "its checksum differs"
        try:
            return opened_png(stored.content)
        except Exception as error:  # whatever Pillow raises for a file that somebody else has made
            return f"its PNG file does not decode ({error})"
    assert symbols is not None
    assert images is not None
    if checksum_of(symbols[row], levels) != stored.checksum:
        return "its checksum differs"
    return to_pil(images[row])


def _png(picture: Picture, reason: str, tally: _Tally) -> Stored:
    content = png_of(picture.image)
    tally.png[reason] += 1
    tally.png_bytes += len(content)
    return Stored(content, zlib.crc32(content), True)
