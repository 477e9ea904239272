"""Decoding orders: lists of steps, each the positions whose symbols are drawn at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, overload

import torch
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid


class RasterOrder(Sequence[Tensor]):
    """One position a step. A step is made when it is asked for: those of a photograph are more than a million.

    Args:
        positions: All of them, int64 ``(N,)``.
    """

    def __init__(self, positions: Tensor) -> None:
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, step: int) -> Tensor: ...
    @overload
    def __getitem__(self, step: slice) -> RasterOrder: ...
    def __getitem__(self, step: int | slice) -> Tensor | RasterOrder:
        if isinstance(step, slice):
            return RasterOrder(self.positions[step])
        if not -len(self) <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        step %= len(self)
        return self.positions[step : step + 1]


def raster_order(grid: Grid, device: torch.device | str = "cpu") -> Sequence[Tensor]:
    """One position a step: rows, then columns, then channels.

    Args:
        grid: The grid that is decoded.
        device: Where the positions are.

    Returns:
        N steps, int64 ``(1,)`` each.

    Example:
        >>> from rasterwise import Grid
        >>> list(raster_order(Grid(1, 1, 2, 4)))
        [tensor([0]), tensor([1])]
    """
    return RasterOrder(torch.arange(grid.size, device=device))


class Wavefront(NamedTuple):
    """Symbols that are drawn at once: one in each of several rows that follow one another, on a diagonal.

    Attributes:
        time: Row r is at column ``time - lag * r``.
        rows: Which rows.
        channel: Which symbol of their sites.
    """

    time: int
    rows: slice
    channel: int


def wavefronts(grid: Grid, lag: int) -> list[Wavefront]:
    """The wavefronts of a grid in which every row follows the row above it ``lag`` columns behind.

    Args:
        grid: The grid that is decoded; each of its symbols is in one wavefront.
        lag: 1 to W; W is raster order.

    Raises:
        InputError: The lag is out of range.

    Example:
        >>> from rasterwise import Grid
        >>> [(each.time, each.rows.start, each.rows.stop) for each in wavefronts(Grid(1, 2, 3, 4), 2)]
        [(0, 0, 1), (1, 0, 1), (2, 0, 2), (3, 1, 2), (4, 1, 2)]
    """
    if not 1 <= lag <= grid.width:
        raise InputError(f"lag is {lag}, expected 1 to the grid's width, {grid.width}")
    found = []
    for time in range(grid.width + lag * (grid.height - 1)):
        first = max(0, -(-(time - grid.width + 1) // lag))
        rows = slice(first, min(grid.height - 1, time // lag) + 1)
        found += [Wavefront(time, rows, channel) for channel in range(grid.channels)]
    return found


def wavefront_order(grid: Grid, lag: int, device: torch.device | str = "cpu") -> list[Tensor]:
    """The positions of each of ``wavefronts``, from the top row down: int64 ``(T,)``. Arguments as there."""
    rows = torch.arange(grid.height, device=device)
    return [
        (rows[wavefront.rows] * (grid.width - lag) + wavefront.time) * grid.channels + wavefront.channel
        for wavefront in wavefronts(grid, lag)
    ]
