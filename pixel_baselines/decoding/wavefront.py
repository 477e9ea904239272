"""Cached decoding of masked convolutions in wavefronts: a symbol of every row that is at work at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pixel_baselines.layers.masked_conv import CausalConv2d
from pixel_baselines.layers.symbols import SymbolEmbedding
from rasterwise.decoding.decoder import Decoder
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.order import Wavefront, wavefront_order, wavefronts


class Tap(NamedTuple):
    """A neighbour of every site: so many rows up, so many columns to the right."""

    up: int
    across: int


OWN_SITE = Tap(0, 0)


class WavefrontDecoder(Decoder):
    """Decodes in wavefronts a model whose first layer is a masked convolution of the embedded symbols.

    It draws the images of raster order, since what it puts off does not count for what it draws before: the
    model's blind spot to the right, in the row above, lets a row begin before the one above it has ended.

    A subclass computes in ``_begin`` what is known before the first symbol of a wavefront's sites, and in
    ``_step`` what one symbol adds. The embedded symbols of the whole grid are kept: they are as many as those
    drawn.

    Args:
        grid: The grid that is decoded.
        batch_size: How many grids are decoded at once.
        embedding: Of the symbols.
        conv: The first layer, p columns wide to either side.
        bias: ``(B, outputs)`` of the first layer.
        reach: How many columns to the right the layers above see in the row above.

    Attributes:
        lag: How many columns a row stays behind the one above it: p + 1, or reach + 1 where that is more.
        wavefronts: What is drawn at each step.
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
        self.lag = min(max(p, reach) + 1, grid.width)
        self.wavefronts = wavefronts(grid, self.lag)
        super().__init__(grid, batch_size, wavefront_order(grid, self.lag, like.device))
        self.input_reach = p
        self.table = embedding.table(like.dtype, like.device)
        self.inputs = like.new_zeros(grid.height + p, batch_size, grid.width + 2 * p, embedding.features)
        self.input_matrix = conv.row_matrix(p + 1).contiguous()
        self.most = max(self.count(wavefront) for wavefront in self.wavefronts)
        self.input_bias = bias.repeat(self.most // batch_size, 1)

    def count(self, wavefront: Wavefront) -> int:
        """T · B: the sites of a wavefront in all grids, row by row."""
        return (wavefront.rows.stop - wavefront.rows.start) * self.batch_size

    def read_symbols(self, wavefront: Wavefront, features: slice, out: Tensor) -> None:
        """Some features of the first layer at a wavefront's sites ``(T · B, features)``."""
        count = self.count(wavefront)
        windows = self._windows(wavefront).reshape(count, -1)
        torch.addmm(self.input_bias[:count, features], windows, self.input_matrix[:, features], out=out)

    def _logits(self) -> Tensor:
        wavefront = self.wavefronts[self.index]
        if wavefront.channel == 0:
            self._begin(wavefront)
        logits = self._step(wavefront)
        return logits.unflatten(0, (-1, self.batch_size)).transpose(0, 1).contiguous()

    def _advance(self, symbols: Tensor) -> None:
        wavefront, embedded = self.wavefronts[self.index], self.table.shape[1]
        own = slice(wavefront.channel * embedded, (wavefront.channel + 1) * embedded)
        vectors = self.table.index_select(0, symbols.t().flatten())
        window = self._windows(wavefront)[:, :, self.input_reach, self.input_reach, own]
        window.copy_(vectors.view_as(window))

    def _windows(self, wavefront: Wavefront) -> Tensor:
        """What the first layer sees of a wavefront's sites: a view ``(T, B, p + 1, 2p + 1, F)`` of the inputs."""
        p, rows = self.input_reach, wavefront.rows
        down, across, right, feature = self.inputs.stride()
        column = wavefront.time - self.lag * rows.start
        return self.inputs.as_strided(
            (rows.stop - rows.start, self.batch_size, p + 1, 2 * p + 1, self.inputs.shape[-1]),
            (down - self.lag * right, across, down, right, feature),  # the next row is ``lag`` columns behind
            rows.start * down + column * right,
        )

    @abstractmethod
    def _begin(self, wavefront: Wavefront) -> None: ...

    @abstractmethod
    def _step(self, wavefront: Wavefront) -> Tensor:
        """Logits ``(T · B, K)`` of a wavefront."""


class WavefrontCache:
    """Features of several layers at the last times of decoding in wavefronts, those of a time row by row.

    A neighbour of all sites of a wavefront, in whichever direction, is a view of those at one time. Where no
    row is at work at a time there are zeros, as there are beyond the edges of a map.

    Args:
        like: A weight, for its dtype and device.
        layers: How many.
        features: Of a layer.
        decoder: Whose wavefronts they belong to.
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

    def begin(self, wavefront: Wavefront) -> None:
        """Make room for a wavefront's features: rows that ended since its memory was last used become zeros."""
        last = wavefront.rows.start + self.rows_above
        first = max(self.rows_above, last - -(-self.times // self.lag))
        self.memory[:, wavefront.time % self.times, first:last].zero_()

    def at(self, wavefront: Wavefront, tap: Tap = OWN_SITE) -> Tensor:
        """The features at a neighbour of the wavefront's sites: a view ``(layers, T · B, features)``."""
        first = self.rows_above - tap.up
        rows = slice(first + wavefront.rows.start, first + wavefront.rows.stop)
        time = wavefront.time + tap.across - self.lag * tap.up
        return self.memory[:, time % self.times, rows].flatten(1, 2)

    def add_to(self, sums: Tensor, wavefront: Wavefront, matrices: dict[Tap, Tensor]) -> None:
        """Add what neighbours give: ``(layers, features, outputs)`` each, to sums ``(layers, T · B, outputs)``."""
        for tap, matrix in matrices.items():
            sums.baddbmm_(self.at(wavefront, tap), matrix)
