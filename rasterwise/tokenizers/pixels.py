"""Subpixels as symbols."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from rasterwise.configuration import PixelLevels, configuration
from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.image import ImageTokenizer


@configuration()
class PixelTokenizerConfig:
    """Pixels as symbols.

    Attributes:
        levels: Levels a subpixel: 2, 4, … 256. 256 keeps the image as it is.
        dynamic: Draw binary pixels as Bernoulli(intensity / 255) at every encoding ("dynamic" binarization)
            instead of cutting at the middle. Needs 2 levels.
    """

    levels: PixelLevels = 256
    dynamic: bool = False

    def __post_init__(self) -> None:
        if self.dynamic and self.levels != 2:
            raise InputError(f"dynamic binarization gives 2 levels, not {self.levels}")


class PixelTokenizer(ImageTokenizer):
    """Subpixels as symbols, at full depth or quantized to fewer levels.

    Args:
        config: Levels, and how two of them are chosen.

    Example:
        >>> import torch
        >>> from rasterwise import PixelTokenizer, PixelTokenizerConfig
        >>> images = torch.tensor([[[[0, 100], [200, 255]]]], dtype=torch.uint8)
        >>> tokenizer = PixelTokenizer(PixelTokenizerConfig(levels=4))
        >>> symbols = tokenizer.encode(images)
        >>> symbols.tolist(), tokenizer.decode(symbols).tolist()
        ([[[[0, 1], [3, 3]]]], [[[[0, 85], [255, 255]]]])
    """

    kind = "pixels"
    config_class = PixelTokenizerConfig
    symbols = "subpixels"
    config: PixelTokenizerConfig

    def __init__(self, config: PixelTokenizerConfig | None = None) -> None:
        super().__init__(config or PixelTokenizerConfig())

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self.config).encode()).hexdigest()

    @property
    def stochastic(self) -> bool:
        """True for dynamic binarization."""
        return self.config.dynamic

    def grid(self, channels: int, height: int, width: int) -> Grid:
        """One symbol a subpixel."""
        return Grid(channels, height, width, self.config.levels)

    def image_shape(self, grid: Grid) -> tuple[int, int, int]:
        """One subpixel a symbol."""
        return grid.shape

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 ``(B, C, H, W)`` to int64 symbols of the same shape; dynamic draws use ``generator`` (CPU)."""
        if images.dtype != torch.uint8:
            raise InputError(f"images are {images.dtype}, expected uint8 (B, C, H, W)")
        if self.config.dynamic:
            uniform = torch.rand(images.shape, generator=generator).to(images.device)
            return (uniform * 255 < images).long()
        return images.long() * self.config.levels // 256

    def decode(self, symbols: Tensor) -> Tensor:
        """int64 symbols to uint8: level 0 is black and the last level white."""
        top = self.config.levels - 1
        return ((symbols * 255 + top // 2) // top).to(torch.uint8)
