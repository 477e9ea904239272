"""Decoders: the logits of the next symbols of a grid, step by step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from rasterwise.decoding.sampling import guided
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.order import raster_order

Method = TypeVar("Method", bound=Callable[..., Any])


def _without_gradients(method: Method) -> Method:
    """``torch.no_grad`` that costs nothing where gradients are off already, as they are in the decoding loop."""

    @wraps(method)
    def wrapped(*arguments: Any) -> Any:
        if not torch.is_grad_enabled():
            return method(*arguments)
        with torch.no_grad():
            return method(*arguments)

    return cast(Method, wrapped)


class CaptureRegion(NamedTuple):
    """Steps that do the very same operations on the very same tensors again and again.

    Attributes:
        period: Steps until they begin anew; the same numbers of positions in every period.
        repeats: How many periods there are.
    """

    period: int
    repeats: int


class TeacherForced(Protocol):
    """What decoding needs of a model: the logits of all positions of given grids in one pass."""

    @property
    def grid(self) -> Grid:
        """The grid of symbols that the model is a distribution over."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""

    def __call__(self, symbols: Tensor, condition: Condition | None = None, /) -> Tensor:
        """Logits ``(B, C, H, W, K)`` of symbols int64 ``(B, C, H, W)``, each given those before it."""


class Decoder(ABC):
    """Decodes grids of symbols, one step after the other.

    ``logits()`` gives the distributions of the next step's symbols; ``advance(symbols)`` fixes them and goes on
    to the step after it. A subclass computes each activation once and keeps what later steps need of it.

    Args:
        grid: The grid that is decoded.
        batch_size: How many grids are decoded at once (B).
        steps: The positions of each step in raster order, int64 ``(T,)``; every position in one step.

    Attributes:
        index: How many steps have been taken.

    Example:
        >>> import torch
        >>> from rasterwise import Grid, PixelCNN, PixelCNNConfig
        >>> model = PixelCNN(PixelCNNConfig(grid=Grid(1, 2, 3, 5), width=8, blocks=1)).eval()
        >>> decoder = model.decoder(batch_size=4)
        >>> for positions in decoder.steps:
        ...     decoder.advance(decoder.logits().argmax(-1))
        >>> len(decoder.steps), decoder.index
        (6, 6)
    """

    def __init__(self, grid: Grid, batch_size: int, steps: Sequence[Tensor]) -> None:
        self.grid = grid
        self.batch_size = batch_size
        self.steps = steps
        self.index = 0
        self._next_logits: Tensor | None = None

    @_without_gradients
    def logits(self) -> Tensor:
        """Logits ``(B, T, K)`` of the next step's symbols.

        Raises:
            InputError: The grid is full.
        """
        if self._next_logits is None:
            self._check_not_full()
            self._next_logits = self._logits()
        return self._next_logits

    @_without_gradients
    def advance(self, symbols: Tensor) -> None:
        """Fix the next step's symbols and go on.

        Args:
            symbols: int64 ``(B, T)`` in ``[0, K)``. Their values are not read, so that nothing waits for a GPU;
                on a CPU, looking them up finds one that is out of range.

        Raises:
            InputError: The grid is full, or the symbols do not fit it.
        """
        self._check_not_full()
        expected = (self.batch_size, len(self.steps[self.index]))
        if symbols.shape != expected or symbols.dtype != torch.int64:
            raise InputError(f"symbols are {symbols.dtype} {tuple(symbols.shape)}, expected int64 {expected}")
        if self._next_logits is None:
            self.logits()  # later steps need this one's activations, also where nobody asked for its logits
        try:
            self._advance(symbols)
        except IndexError:
            self._check_values(symbols)
            raise
        self._next_logits = None
        self.index += 1

    def capture_regions(self) -> list[CaptureRegion]:
        """Make ready, before the first step, for decoding that is captured; say where it repeats itself.

        One period may differ from the next in the content of tensors alone: a capture holds the host's
        numbers and views as they were. A decoder that says nothing else repeats nothing.

        Returns:
            Regions that follow one another and cover all steps.
        """
        return [CaptureRegion(period=1, repeats=1)] * len(self.steps)

    def skip(self, steps: int) -> None:
        """Count steps that a replay has taken."""
        self.index += steps

    def _check_not_full(self) -> None:
        if self.index >= len(self.steps):
            raise InputError(f"the grid is full: all {self.grid.size} symbols have been decoded")

    def _check_values(self, symbols: Tensor) -> None:
        low, high = int(symbols.min()), int(symbols.max())
        if low < 0 or high >= self.grid.levels:
            raise InputError(f"symbols lie in [{low}, {high}], expected [0, {self.grid.levels - 1}]")

    @abstractmethod
    def _logits(self) -> Tensor:
        """Logits ``(B, T, K)`` of step ``index``; called once a step."""

    @abstractmethod
    def _advance(self, symbols: Tensor) -> None:
        """Take in the symbols ``(B, T)`` of step ``index``, whose logits have been computed."""


def decoded_logits(decoder: Decoder, symbols: Tensor) -> Tensor:
    """The logits that a decoder gives on its way through known grids.

    Args:
        decoder: Of these grids, before its first step.
        symbols: int64 ``(B, C, H, W)``.

    Returns:
        ``(B, N, K)`` in raster order.
    """
    sequence, found = decoder.grid.flatten(symbols), []
    for positions in decoder.steps:
        found.append(decoder.logits())
        assert found[-1].shape == (decoder.batch_size, len(positions), decoder.grid.levels)
        decoder.advance(sequence[:, positions])
    return torch.cat(found, 1)[:, torch.cat(list(decoder.steps)).argsort()]


class NaiveDecoder(Decoder):
    """A whole teacher-forced pass a step: slow, and right by construction.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
        steps: The decoding order; by default raster order. What the model sees of other positions when it
            computes a step's logits must be in earlier steps.
    """

    def __init__(
        self,
        model: TeacherForced,
        batch_size: int,
        condition: Condition | None = None,
        steps: Sequence[Tensor] | None = None,
    ) -> None:
        grid, device = model.grid, model.device
        super().__init__(grid, batch_size, raster_order(grid, device) if steps is None else steps)
        self.model = model
        self.condition = condition
        self.sequence = torch.zeros(batch_size, grid.size, dtype=torch.int64, device=device)

    def _logits(self) -> Tensor:
        logits = self.model(self.grid.unflatten(self.sequence), self.condition)
        return self.grid.flatten(logits)[:, self.steps[self.index]]

    def _advance(self, symbols: Tensor) -> None:
        self._check_values(symbols)  # next to a pass it costs nothing
        self.sequence[:, self.steps[self.index]] = symbols


class GuidedDecoder(Decoder):
    """Conditional and unconditional grids decoded in one batch; see ``guided``.

    Args:
        both: The decoder of twice as many grids, the latter half of them unconditional.
        scale: Of the guidance.
    """

    def __init__(self, both: Decoder, scale: float) -> None:
        super().__init__(both.grid, both.batch_size // 2, both.steps)
        self.both, self.scale = both, scale

    def capture_regions(self) -> list[CaptureRegion]:
        return self.both.capture_regions()

    def skip(self, steps: int) -> None:
        super().skip(steps)
        self.both.skip(steps)

    def _logits(self) -> Tensor:
        return guided(self.both.logits(), self.scale)

    def _advance(self, symbols: Tensor) -> None:
        self.both.advance(symbols.repeat(2, 1))
