"""The grid of symbols that every model here is a distribution over."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rasterwise.configuration import Depth, Levels, Pixels, configuration
from rasterwise.errors import InputError


class Site(NamedTuple):
    """The row, the column and the channel of one symbol."""

    row: int
    column: int
    channel: int


@configuration()
class Grid:
    """The shape of a grid of discrete symbols, and their raster order: rows, then columns, then channels.

    Symbols are int64 tensors ``(B, channels, height, width)`` with values in ``[0, levels)``. Flattened to
    raster order they are ``(B, N)`` with ``N = channels · height · width``.

    Attributes:
        channels: Symbols a site: 3 for RGB, 1 for grey pixels and for codes.
        height: Rows.
        width: Columns.
        levels: How many values a symbol can take (K).

    Example:
        >>> import torch
        >>> from rasterwise import Grid
        >>> grid = Grid(channels=3, height=2, width=2, levels=256)
        >>> grid.size, grid.site(4)
        (12, Site(row=0, column=1, channel=1))
        >>> symbols = torch.arange(12).reshape(1, 3, 2, 2)
        >>> bool((grid.unflatten(grid.flatten(symbols)) == symbols).all())
        True
    """

    channels: Depth
    height: Pixels
    width: Pixels
    levels: Levels

    def __str__(self) -> str:
        return f"{self.channels}×{self.height}×{self.width} of {self.levels} levels"

    @property
    def size(self) -> int:
        """N, the number of symbols in one grid."""
        return self.channels * self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    def site(self, index: int) -> Site:
        """The site of the symbol at ``index`` in raster order."""
        position, channel = divmod(index, self.channels)
        row, column = divmod(position, self.width)
        return Site(row, column, channel)

    def flatten(self, symbols: Tensor) -> Tensor:
        """``(B, C, H, W)`` to raster order ``(B, N)``; further trailing dimensions are kept."""
        return symbols.movedim(1, 3).flatten(1, 3)

    def unflatten(self, sequence: Tensor) -> Tensor:
        """Raster order ``(B, N)`` to ``(B, C, H, W)``; further trailing dimensions are kept."""
        return sequence.unflatten(1, (self.height, self.width, self.channels)).movedim(3, 1)

    def check(self, symbols: Tensor) -> None:
        """Raise InputError unless ``symbols`` is an int64 batch of this grid."""
        if symbols.dtype != torch.int64:
            raise InputError(f"symbols are int64, not {symbols.dtype}; a tokenizer's encode gives them")
        if symbols.ndim != 4 or tuple(symbols.shape[1:]) != self.shape:
            raise InputError(f"symbols have shape {tuple(symbols.shape)}, expected (B, {self.shape})")
        if torch.compiler.is_compiling():
            return  # reading values would cut the compiled graph in two
        if symbols.numel() and (int(symbols.min()) < 0 or int(symbols.max()) >= self.levels):
            low, high = int(symbols.min()), int(symbols.max())
            raise InputError(f"symbols lie in [{low}, {high}], expected [0, {self.levels - 1}]")
