"""What models of masked convolutions have in common when they are walked by fronts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixel_baselines.layers.masked_conv import CausalConv2d
from pixel_baselines.layers.symbols import SymbolEmbedding
from rasterwise.decoding.decoder import WavefrontDecoder
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.order import Front


class Tap(NamedTuple):
    """A neighbour of every site: so many rows up, so many columns to the right."""

    up: int
    across: int


OWN_SITE = Tap(0, 0)


class FrontFeatures:
    """Features of several layers at the last times of a walk, those of a time row by row.

    A neighbour of all sites of a front, in whichever direction, is a view of those at one time. Where no row
    is at work at a time there are zeros, as there are beyond the edges of a map.

    Args:
        like: A weight, for its dtype and device.
        layers: How many.
        features: Of a layer.
        decoder: Whose fronts they belong to.
        taps: The neighbours that are asked for.
    """

    def __init__(
        self, like: Tensor, layers: int, features: int, decoder: WavefrontDecoder, taps: Sequence[Tap]
    ) -> None:
        self.lag = decoder.lag
        self.rows_above = max(tap.up for tap in taps)
        self.times = 1 + max(self.lag * tap.up - tap.across for tap in taps)
        rows = self.rows_above + decoder.grid.height
        self.memory = like.new_zeros(layers, self.times, rows, decoder.batch_size, features)

    def begin(self, front: Front) -> None:
        """Make room for a front's features: rows that have ended since that place was last used become zeros."""
        last = front.rows.start + self.rows_above
        first = max(self.rows_above, last - -(-self.times // self.lag))
        self.memory[:, front.time % self.times, first:last].zero_()

    def at(self, front: Front, tap: Tap = OWN_SITE) -> Tensor:
        """The features at a neighbour of the front's sites: a view ``(layers, T · B, features)``."""
        first = self.rows_above - tap.up
        rows = slice(first + front.rows.start, first + front.rows.stop)
        time = front.time + tap.across - self.lag * tap.up
        return self.memory[:, time % self.times, rows].flatten(1, 2)

    def add_to(self, sums: Tensor, front: Front, matrices: dict[Tap, Tensor]) -> None:
        """Add what neighbours give: ``(layers, features, outputs)`` each, to sums ``(layers, T · B, outputs)``."""
        for tap, matrix in matrices.items():
            sums.baddbmm_(self.at(front, tap), matrix)


class MaskedInputWavefront(WavefrontDecoder):
    """A walk by fronts over a model whose first layer is a masked convolution of the embedded symbols.

    A subclass computes in ``_begin`` what is known before the first symbol of a front's sites, and in ``_step``
    what one symbol adds. The embedded symbols of the whole grid are kept: they are as many as those drawn.

    Args:
        grid: The grid that is walked.
        batch_size: How many grids are walked at once.
        embedding: Of the symbols.
        conv: The first layer, p columns wide to either side.
        bias: ``(B, outputs)`` of the first layer.
        reach: How many columns to the right the layers above see in the row above. A row stays p + 1 columns
            behind that one, or reach + 1 where that is more.
    """

    def __init__(
        self,
        grid: Grid,
        batch_size: int,
        embedding: SymbolEmbedding,
        conv: CausalConv2d,
        bias: Tensor,
        reach: int,
    ) -> None:
        p, like = conv.left, conv.weight
        super().__init__(grid, batch_size, min(max(p, reach) + 1, grid.width), like.device)
        self.input_reach = p
        self.table = embedding.table(like.dtype, like.device)
        self.inputs = like.new_zeros(grid.height + p, batch_size, grid.width + 2 * p, embedding.features)
        self.input_matrix = conv.row_matrix(p + 1).contiguous()
        self.most = max(self.count(front) for front in self.fronts)
        self.input_bias = bias.repeat(self.most // batch_size, 1)
        self.next_logits: Tensor | None = None

    def count(self, front: Front) -> int:
        """T · B: the sites of a front in all grids, row by row."""
        return (front.rows.stop - front.rows.start) * self.batch_size

    def read_symbols(self, front: Front, features: slice, out: Tensor) -> None:
        """Some features of the first layer at a front's sites ``(T · B, features)``."""
        count = self.count(front)
        windows = self._windows(front).reshape(count, -1)
        torch.addmm(self.input_bias[:count, features], windows, self.input_matrix[:, features], out=out)

    @torch.no_grad()
    def _logits(self, front: Front) -> Tensor:
        if self.next_logits is None:
            if front.channel == 0:
                self._begin(front)
            logits = self._step(front)
            self.next_logits = logits.unflatten(0, (-1, self.batch_size)).transpose(0, 1).contiguous()
        return self.next_logits

    @torch.no_grad()
    def _advance(self, front: Front, symbols: Tensor) -> None:
        self._logits(
            front
        )  # later sites need this front's activations, also where nobody asked for its logits
        self.next_logits = None
        embedded = self.table.shape[1]
        own = slice(front.channel * embedded, (front.channel + 1) * embedded)
        self._windows(front)[:, :, self.input_reach, self.input_reach, own] = self.table[symbols.t()]

    def _windows(self, front: Front) -> Tensor:
        """What the first layer sees of a front's sites: a view ``(T, B, p + 1, 2p + 1, F)`` of the inputs."""
        p, rows = self.input_reach, front.rows
        down, across, right, feature = self.inputs.stride()
        column = front.time - self.lag * rows.start
        return self.inputs.as_strided(
            (rows.stop - rows.start, self.batch_size, p + 1, 2 * p + 1, self.inputs.shape[-1]),
            (down - self.lag * right, across, down, right, feature),  # the next row is ``lag`` columns behind
            rows.start * down + column * right,
        )

    @abstractmethod
    def _begin(self, front: Front) -> None: ...

    @abstractmethod
    def _step(self, front: Front) -> Tensor:
        """Logits ``(T · B, K)`` of a front."""
