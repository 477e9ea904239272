"""What turns images into a grid of symbols and back; and the tokenizer that does (almost) nothing."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rasterwise.symbols.grid import Grid


@runtime_checkable
class ImageTokenizer(Protocol):
    """Images to a grid of symbols, and back."""

    @property
    def fingerprint(self) -> str:
        """Hex digest: equal only for tokenizers that give the same symbols."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether encoding draws, so that the same image can become different symbols."""
        ...

    def grid(self, channels: int, height: int, width: int) -> Grid:
        """The grid that images ``(channels, height, width)`` become; InputError where they cannot."""
        ...

    def image_shape(self, grid: Grid) -> tuple[int, int, int]:
        """(channels, height, width) of the images that a grid of this tokenizer's symbols decodes to."""
        ...

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 images ``(B, C, H, W)`` to int64 symbols; the generator is for tokenizers that draw."""
        ...

    def decode(self, symbols: Tensor) -> Tensor:
        """int64 symbols to uint8 images ``(B, C, H, W)``."""
        ...


def encode_reproducibly(tokenizer: ImageTokenizer, images: Tensor, indices: list[int], seed: int) -> Tensor:
    """Symbols of images, the same however these are cut into batches and shared by processes.

    Args:
        tokenizer: One that draws gives each image its own noise.
        images: uint8 ``(B, C, H, W)``.
        indices: Of each image: its noise hangs on that and the seed.
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
