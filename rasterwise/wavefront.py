"""A walk that draws several symbols of a picture at once, where a blind spot keeps them from one another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.grid import Grid
from rasterwise.sampling import guided
from rasterwise.sampling_plan import SamplingPlan


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


class WavefrontDecoder(ABC):
    """A walk over the grid by fronts: each takes a symbol of every row that is at work.

    It draws what the walk in raster order draws, since what it puts off does not count for what it draws
    before: that is the model's to know, which says by its lag how far a row sees to the right in those above.

    Args:
        grid: The grid that is walked.
        batch_size: How many grids are walked at once (B).
        lag: Columns that a row stays behind the one above it.
        device: Of the model.

    Attributes:
        places: int64 ``(T,)`` of each front: the symbols' numbers in raster order.
    """

    def __init__(self, grid: Grid, batch_size: int, lag: int, device: torch.device) -> None:
        self.grid = grid
        self.batch_size = batch_size
        self.lag = lag
        self.fronts = wavefronts(grid, lag)
        rows = torch.arange(grid.height, device=device)
        self.places = [
            (rows[front.rows] * (grid.width - lag) + front.time) * grid.channels + front.channel
            for front in self.fronts
        ]
        self.number = 0

    def logits(self) -> Tensor:
        """Logits ``(B, T, K)`` of the next front. Raises InputError past the last one."""
        return self._logits(self._next())

    def advance(self, symbols: Tensor) -> None:
        """Fix the symbols of the front whose logits were taken, int64 ``(B, T)`` in ``[0, K)``, and go on."""
        self._advance(self._next(), symbols)
        self.number += 1

    def _next(self) -> Front:
        if self.number >= len(self.fronts):
            raise InputError(f"the grid is full: all {self.grid.size} symbols have been drawn")
        return self.fronts[self.number]

    @abstractmethod
    def _logits(self, front: Front) -> Tensor: ...

    @abstractmethod
    def _advance(self, front: Front, symbols: Tensor) -> None: ...


class GuidedWavefrontDecoder(WavefrontDecoder):
    """The conditional and the unconditional walk in one batch; see ``guided``.

    Args:
        both: The walk of twice as many grids, the latter half of them untold.
        scale: Of the guidance.
    """

    def __init__(self, both: WavefrontDecoder, scale: float) -> None:
        super().__init__(both.grid, both.batch_size // 2, both.lag, both.places[0].device)
        self.both, self.scale = both, scale

    def _logits(self, front: Front) -> Tensor:
        return guided(self.both.logits(), self.scale)

    def _advance(self, front: Front, symbols: Tensor) -> None:
        self.both.advance(symbols.repeat(2, 1))


def walk_by_fronts(decoder: WavefrontDecoder, plan: SamplingPlan, sequence: Tensor) -> Iterator[int]:
    """Draw the symbols of a plan; arguments and what is yielded as for ``walk``."""
    count = 0
    for places in decoder.places:
        symbols = plan.at(places).draw(decoder.logits(), slice(None))
        sequence[:, places] = symbols
        decoder.advance(symbols)
        count += len(places)
        yield count
