"""Decoding orders: lists of steps, each the positions whose symbols are drawn at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
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


def checked_order(grid: Grid, order: Sequence[Tensor]) -> list[Tensor]:
    """The steps of a decoding order on the CPU, if every position of the grid is in one of them, once.

    Args:
        grid: The grid that is decoded.
        order: Steps of positions, int64 ``(T,)`` each.

    Raises:
        InputError: A step is empty or no such tensor, or the steps are no permutation of the positions.
    """
    for step in order:
        if not isinstance(step, Tensor) or step.dtype != torch.int64 or step.ndim != 1 or not len(step):
            raise InputError("an order is a list of steps, each of 1 position or more, int64 (T,)")
    steps = [step.cpu() for step in order]
    found = torch.cat(steps).sort().values.tolist() if steps else []
    if found != list(range(grid.size)):
        raise InputError(
            f"an order takes each position of a grid once, 0 to {grid.size - 1}; this one is no permutation of them"
        )
    return steps


def spread_order(grid: Grid, steps: int) -> list[Tensor]:
    """Several positions a step, far from one another; few in the first steps and more in the later ones.

    Symbols of one step are drawn without knowledge of one another. Each site is the one farthest from all before it
    (farthest-first traversal), so that those of a step are far apart, and what lies between them has been drawn as
    often as can be. Every site has its first channel before any has its second. After t of S steps, the share
    cos(π/2 · t/S) of the positions is still to come.

    Args:
        grid: The grid that is decoded.
        steps: 1 to N; N is one position a step.

    Returns:
        Positions int64 ``(T,)`` of each step, on the CPU.

    Raises:
        InputError: The number of steps is out of range.

    References:
        Chang et al., MaskGIT, 2022 (arXiv 2202.04200), for the cosine; Zhang et al., Locality-aware Parallel Decoding
        for Efficient Autoregressive Image Generation, 2025 (arXiv 2507.01957), for steps of distant positions.

    Example:
        >>> from rasterwise import Grid
        >>> spread_order(Grid(1, 3, 3, 4), 4)
        [tensor([4]), tensor([0, 2]), tensor([6, 8, 1]), tensor([3, 5, 7])]
    """
    if not 1 <= steps <= grid.size:
        raise InputError(f"steps is {steps}, expected 1 to {grid.size}, one for each symbol of a grid")
    sites = _farthest_first(grid.height, grid.width)
    positions = (sites * grid.channels + torch.arange(grid.channels)[:, None]).flatten()
    ends = [0]
    for step in range(1, steps + 1):
        wanted = round(grid.size * (1 - math.cos(math.pi / 2 * step / steps)))
        # One position a step at least, also in those to come.
        ends.append(min(max(wanted, ends[-1] + 1), grid.size - steps + step))
    return list(positions.split([end - start for start, end in pairwise(ends)]))


def _farthest_first(height: int, width: int) -> Tensor:
    """All sites, int64 ``(H · W,)``: the middle first, and then always the one farthest from all before it."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    nearest = torch.full((height * width,), height**2 + width**2)
    found = [height // 2 * width + width // 2]
    while True:
        row, column = divmod(found[-1], width)
        nearest = torch.minimum(nearest, ((rows - row) ** 2 + (columns - column) ** 2).flatten())
        if len(found) == height * width:
            return torch.tensor(found)
        found.append(int(nearest.argmax()))
