"""Decoding orders."""

from __future__ import annotations

from typing import NamedTuple

from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid


class Front(NamedTuple):
    """Symbols that are drawn at once: one of each of some rows that follow one another, on a diagonal.

    Attributes:
        time: Row r is at column ``time - lag * r``.
        rows: Which.
        channel: Which symbol of their sites.
    """

    time: int
    rows: slice
    channel: int


def wavefronts(grid: Grid, lag: int) -> list[Front]:
    """The fronts of a walk in which every row follows the row above it ``lag`` columns behind.

    Args:
        grid: Whose symbols, each in one front.
        lag: 1 to W; W is raster order.

    Example:
        >>> from rasterwise import Grid
        >>> [(front.time, front.rows.start, front.rows.stop) for front in wavefronts(Grid(1, 2, 3, 4), 2)]
        [(0, 0, 1), (1, 0, 1), (2, 0, 2), (3, 1, 2), (4, 1, 2)]
    """
    if not 1 <= lag <= grid.width:
        raise InputError(f"lag is {lag}, expected 1 to the grid's width, {grid.width}")
    fronts = []
    for time in range(grid.width + lag * (grid.height - 1)):
        first = max(0, -(-(time - grid.width + 1) // lag))
        rows = slice(first, min(grid.height - 1, time // lag) + 1)
        fronts += [Front(time, rows, channel) for channel in range(grid.channels)]
    return fronts
