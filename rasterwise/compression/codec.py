"""Pictures to a file and back, by a tokenizer and a model of its symbols."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from rasterwise.compression.container import Container, Section
from rasterwise.compression.environment import computing_with, environment_here
from rasterwise.compression.pictures import pictures_of
from rasterwise.compression.sections import Tally, decode_section, encode_section, png_stream
from rasterwise.errors import InputError
from rasterwise.images import Images
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.tokenizers.image import ImageTokenizer

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


class Codec:
    """Compresses pictures with the probabilities of a model.

    The encoder goes through the pictures with the very decoder that draws new ones, in the same batches, precision and
    threads as the decompressor will. Probabilities that differ in their last bit decode to noise: a file decodes on
    machines of the same class with the same versions, and a checksum for each picture, or for the few small ones that
    share a stream, proves that it has.

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
        tally, sections, order = Tally(), list[Section](), list[int]()
        for size, places in groups.items():
            done = functools.partial(_further, progress, len(order), len(pictures))
            sections.append(
                encode_section(
                    self.tokenizer,
                    self.sized[size],
                    [pictures[place] for place in places],
                    batch_size=batch_size,
                    check=check,
                    tally=tally,
                    done=done,
                )
            )
            order += places
        if reasons:
            stored = [png_stream([pictures[place]], reason, tally) for place, reason in reasons.items()]
            sections.append(Section(0, 0, len(stored), 1, stored))
            order += reasons
        container = Container(
            *self._fingerprints(),
            environment_here(self.model.device),
            tally.lossless,
            batch_size,
            sections,
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
        coded: list[bool] = []
        threads = (
            container.environment.threads if self.model.device.type == "cpu" else torch.get_num_threads()
        )
        with computing_with(max(1, threads)):
            for section in container.sections:
                before = len(found)
                done = functools.partial(_further, progress, before, len(container.order))
                found += decode_section(
                    self.tokenizer,
                    self._model_of(section),
                    section,
                    batch_size=container.batch_size,
                    done=done,
                )
                coded += [
                    isinstance(found[before + row], str)
                    for place, stream in enumerate(section.streams)
                    if not stream.is_png
                    for row in section.pictures(place)
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
        return bytes.fromhex(self.model.fingerprint[:8]), bytes.fromhex(self.tokenizer.fingerprint[:8])

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

    def _model_of(self, section: Section) -> AutoregressiveModel | None:
        if all(stream.is_png for stream in section.streams):
            return None
        if self._why_no_model((section.height, section.width)):
            raise InputError(
                f"it has images of {section.width}×{section.height}, which this model has none of"
            )
        return self.sized[section.height, section.width]


def _further(progress: Progress | None, before: int, total: int, done: float) -> None:
    if progress:
        progress(before + done, total)
