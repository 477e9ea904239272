"""What a tokenizer is: images to a grid of symbols, and back."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.models.pretrained import Pretrained
from rasterwise.symbols.grid import Grid

SymbolKind = Literal["subpixels", "colours", "codes"]
"""What symbols stand for: the levels of subpixels, the colours of a palette, or the codes of a learned tokenizer."""


@dataclass(frozen=True)
class Reconstructed:
    """Images after the tokenizer.

    Attributes:
        images: uint8 ``(B, C, H, W)``.
        symbols: What they were decoded from, int64 ``(B, C, H, W)``.
        nats: −log p(image | symbols), float ``(B,)``; None where the tokenizer has no likelihood of images.
    """

    images: Tensor
    symbols: Tensor
    nats: Tensor | None = None


class ImageTokenizer(Pretrained):
    """Images to a grid of symbols, and back.

    A subclass says what grid an image becomes and how it is encoded and decoded. Encoding and decoding take an
    evaluation mode, which ``from_pretrained`` gives.

    Attributes:
        symbols: What its symbols stand for.
    """

    symbols: ClassVar[SymbolKind]

    @property
    def device(self) -> torch.device:
        """The device of the weights; the CPU where there are none."""
        weight = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if weight is None else weight.device

    @property
    def stochastic(self) -> bool:
        """Whether encoding draws, so that the same image can become different symbols."""
        return False

    @property
    def channels(self) -> int | None:
        """Channels of the images that it takes; None: any."""
        return None

    @property
    def factor(self) -> int:
        """How many times smaller the grid is than the image, each way."""
        return 1

    @abstractmethod
    def grid(self, channels: int, height: int, width: int) -> Grid:
        """The grid that images ``(channels, height, width)`` become; InputError where they cannot."""

    @abstractmethod
    def image_shape(self, grid: Grid) -> tuple[int, int, int]:
        """(channels, height, width) of the images that a grid of this tokenizer's symbols decodes to."""

    @abstractmethod
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 images ``(B, C, H, W)`` to int64 symbols; the generator is for tokenizers that draw."""

    @abstractmethod
    def decode(self, symbols: Tensor) -> Tensor:
        """int64 symbols to uint8 images ``(B, C, H, W)``."""

    def check_images(self, channels: int, height: int, width: int, factor: int, of: str = "") -> None:
        """Raise InputError unless images have this tokenizer's channels, and sizes that a factor divides.

        Args:
            channels: Of the images.
            height: Of the images.
            width: Of the images.
            factor: Expected to divide both.
            of: What the factor is of, for the message.
        """
        if channels != self.channels:
            raise InputError(
                f"images have {channels} channels, this {self.kind} was built for {self.channels}"
            )
        if height % factor or width % factor:
            raise InputError(
                f"images are {height}×{width}, which factor {factor}{of} does not divide; "
                f"resize them (--size {math.ceil(max(height, width) / factor) * factor}, say)"
            )

    def grids_of(self, symbols: Tensor) -> dict[str, Tensor]:
        """The grids that symbols ``(B, C, H, W)`` consist of, by name; a single one has an empty name."""
        return {"": symbols}

    def histograms(self, parts: Iterable[Tensor], levels: int) -> dict[str, Tensor]:
        """How often each symbol occurs, int64 ``(K,)``, in each of the grids that symbols consist of.

        Args:
            parts: Symbols ``(B, C, H, W)``, on the CPU.
            levels: K.
        """
        found: dict[str, Tensor] = {}
        for symbols in parts:
            for name, part in self.grids_of(symbols).items():
                counts = torch.bincount(part.flatten(), minlength=levels)
                found[name] = found[name] + counts if name in found else counts
        return found

    def known_sites(self, pixels: Tensor) -> Tensor:
        """Which sites, bool ``(B, 1, h, w)``, stand for known pixels ``(B, 1, H, W)`` alone."""
        return F.max_pool2d((~pixels).float(), self.factor) == 0

    def reconstruct(self, images: Tensor) -> Reconstructed:
        """uint8 images ``(B, C, H, W)``, encoded and decoded."""
        symbols = self.encode(images)
        return Reconstructed(self.decode(symbols), symbols)


def encode_reproducibly(tokenizer: ImageTokenizer, images: Tensor, indices: list[int], seed: int) -> Tensor:
    """Symbols of images, the same however these are cut into batches and shared by processes.

    Args:
        tokenizer: One that draws gives each image its own noise.
        images: uint8 ``(B, C, H, W)``.
        indices: Of each image: its noise depends on that and the seed.
        seed: Of the noise.

    Returns:
        int64 ``(B, C, H, W)``.
    """
    if not tokenizer.stochastic:
        return tokenizer.encode(images)
    generator = torch.Generator()
    items = zip(images.split(1), indices, strict=True)
    return torch.cat(
        [tokenizer.encode(image, generator.manual_seed(hash((seed, number)))) for image, number in items]
    )
