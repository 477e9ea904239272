"""Decoders: the logits of the next symbols of a grid, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rasterwise.symbols.order import Front, wavefronts

if TYPE_CHECKING:
    from rasterwise.models.autoregressive import AutoregressiveModel
from abc import ABC, abstractmethod

from rasterwise.decoding.sampling import guided
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid


class Stretch(NamedTuple):
    """A part of a walk that does the very same operations on the very same tensors again and again.

    Attributes:
        period: Symbols until they begin anew.
        repeats: How often they are done.
    """

    period: int
    repeats: int


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


class Decoder(ABC):
    """A walk over the grid in raster order, one symbol of each image at a time.

    ``logits()`` gives the distribution of the next symbol, ``push(symbols)`` fixes it and goes on.

    Attributes:
        grid: The grid that is walked.
        batch_size: How many grids are walked at once (B).
        index: How many symbols of each have been pushed.
    """

    def __init__(self, grid: Grid, batch_size: int) -> None:
        self.grid = grid
        self.batch_size = batch_size
        self.index = 0

    def logits(self) -> Tensor:
        """Logits ``(B, K)`` of the next symbol. Raises InputError past the end of the grid."""
        self._check_not_done()
        return self._logits()

    def push(self, symbols: Tensor) -> None:
        """Fix the next symbol of every grid.

        Args:
            symbols: int64 ``(B,)`` in ``[0, K)``.

        Raises:
            InputError: The grid is full, or the symbols do not fit it.
        """
        self._check_not_done()
        if symbols.shape != (self.batch_size,) or symbols.dtype != torch.int64:
            raise InputError(
                f"pushed {symbols.dtype} {tuple(symbols.shape)}, expected int64 ({self.batch_size},)"
            )
        low, high = int(symbols.min()), int(symbols.max())
        if low < 0 or high >= self.grid.levels:
            raise InputError(f"pushed symbols in [{low}, {high}], expected [0, {self.grid.levels - 1}]")
        self.advance(symbols)

    def advance(self, symbols: Tensor) -> None:
        """``push`` without its checks, which wait for the device: for symbols that are known to fit."""
        self._push(symbols)
        self.index += 1

    def for_replay(self) -> list[Stretch]:
        """Make ready, before the first symbol, for a walk that is recorded; say where it repeats itself.

        A period may hang on where it is through the content of tensors alone: a recording holds the host's
        numbers and views as they were. A decoder that says nothing else repeats nothing.
        """
        return [Stretch(period=1, repeats=1)] * self.grid.size

    def skip(self, count: int) -> None:
        """Count symbols that a replay has pushed."""
        self.index += count

    def _check_not_done(self) -> None:
        if self.index >= self.grid.size:
            raise InputError(f"the grid is full: all {self.grid.size} symbols have been pushed")

    @abstractmethod
    def _logits(self) -> Tensor: ...

    @abstractmethod
    def _push(self, symbols: Tensor) -> None: ...


class NaiveDecoder(Decoder):
    """A whole forward pass a symbol: slow, and right by construction."""

    def __init__(self, model: AutoregressiveModel, batch_size: int, condition: Condition | None) -> None:
        super().__init__(model.grid, batch_size)
        self.model = model
        self.condition = condition
        self.symbols = torch.zeros(batch_size, *model.grid.shape, dtype=torch.int64, device=model.device)

    @torch.no_grad()
    def _logits(self) -> Tensor:
        site = self.grid.site(self.index)
        return self.model(self.symbols, self.condition)[:, site.channel, site.row, site.column]

    def _push(self, symbols: Tensor) -> None:
        site = self.grid.site(self.index)
        self.symbols[:, site.channel, site.row, site.column] = symbols


class GuidedDecoder(Decoder):
    """The conditional and the unconditional walk in one batch; see ``guided``.

    Args:
        both: The walk of twice as many grids, the latter half of them untold.
        scale: Of the guidance.
    """

    def __init__(self, both: Decoder, scale: float) -> None:
        super().__init__(both.grid, both.batch_size // 2)
        self.both, self.scale = both, scale

    def _logits(self) -> Tensor:
        return guided(self.both.logits(), self.scale)

    def _push(self, symbols: Tensor) -> None:
        self.both.advance(symbols.repeat(2))

    def for_replay(self) -> list[Stretch]:
        return self.both.for_replay()

    def skip(self, count: int) -> None:
        super().skip(count)
        self.both.skip(count)
