"""The Diagonal BiLSTM layer and its configuration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.layers.channel_masks import channel_mask
from pixel_baselines.pixel_rnn.network import (
    PixelRNNConfig,
    RecurrentLayer,
    fan_in_uniform,
    lstm_step,
)
from rasterwise.configuration import configuration


@configuration(kw_only=True)
class DiagonalBiLSTMConfig(PixelRNNConfig):
    """A Diagonal BiLSTM: its fields are those of every PixelRNN."""


@dataclass(frozen=True)
class Diagonals:
    """The order in which a map is read diagonal by diagonal; a step computes one diagonal.

    The paper skews the map, so that diagonals become columns, and half of the skewed map is padding. Here the
    sites of each diagonal lie side by side without the padding, which halves the arithmetic.

    Attributes:
        order: Indices of the sites in raster order, diagonal after diagonal, each from its top row down:
            int64 ``(H · W,)``.
        lengths: Sites on each of the H + W − 1 diagonals.
        first_rows: Top row of each diagonal.
    """

    order: Tensor
    lengths: tuple[int, ...]
    first_rows: tuple[int, ...]

    @staticmethod
    def of(height: int, width: int, *, mirrored: bool) -> Diagonals:
        """The diagonals that start in the upper left corner, or, mirrored, in the upper right one.

        Example:
            >>> diagonals = Diagonals.of(2, 3, mirrored=False)
            >>> diagonals.order.tolist(), diagonals.lengths
            ([0, 1, 3, 2, 4, 5], (1, 2, 2, 1))
        """
        first_rows = tuple(max(0, diagonal - width + 1) for diagonal in range(height + width - 1))
        lengths = tuple(
            min(diagonal, height - 1) - first_row + 1 for diagonal, first_row in enumerate(first_rows)
        )
        order = []
        for diagonal, (first_row, length) in enumerate(zip(first_rows, lengths, strict=True)):
            for row in range(first_row, first_row + length):
                column = diagonal - row
                order.append(row * width + (width - 1 - column if mirrored else column))
        return Diagonals(torch.tensor(order), lengths, first_rows)


class DiagonalBiLSTMLayer(RecurrentLayer):
    """One step a diagonal, both directions at once; 1×1 masked input-to-state, 2×1 state-to-state.

    A site of the left-to-right LSTM gets the states left of it and above it, and the cell left of it; the
    other direction is its mirror image. The right-to-left states are moved down a row before the two are
    added: unmoved they would show a site the columns right of it.

    Args:
        config: The model's.
        columns: Of the map.
    """

    input_mask: Tensor
    order: Tensor
    rank: Tensor

    def __init__(self, config: DiagonalBiLSTMConfig, columns: int) -> None:
        super().__init__(config, directions=2)
        grid, features = config.grid, config.width
        mask = channel_mask(features, config.state_width, grid.channels, "B").repeat(4, 1).t()
        self.register_buffer("input_mask", mask.contiguous(), persistent=False)
        self.input_weight = fan_in_uniform(2, features, self.gates, fan_in=features)
        # Rows: the state along the row, then the state above.
        self.state_weight = fan_in_uniform(2, features, self.gates, fan_in=features)
        left = Diagonals.of(grid.height, columns, mirrored=False)
        right = Diagonals.of(grid.height, columns, mirrored=True)
        self.lengths, self.first_rows = left.lengths, left.first_rows
        self.register_buffer("order", torch.cat([left.order, right.order]), persistent=False)
        ranks = torch.stack([left.order.argsort(), right.order.argsort()])
        self.register_buffer("rank", ranks, persistent=False)

    @property
    def masked_weight(self) -> Tensor:
        """Input-to-state of both directions ``(2, 2h, 4h)``, zero where masked."""
        return self.input_weight * self.input_mask

    def hidden_map(self, x: Tensor, label: Tensor) -> Tensor:
        height, width, batch_size, features = x.shape
        ordered = x.flatten(0, 1).index_select(0, self.order).view(2, -1, features)
        gates = torch.bmm(ordered, self.masked_weight).unflatten(1, (height * width, batch_size))
        gates = gates + self.gate_bias(label)[:, None].to(gates.dtype)
        hidden: list[Tensor] = []
        cell = None
        for diagonal, sums in enumerate(gates.split(self.lengths, 1)):
            if cell is not None:
                # Rows of the diagonal before this one that lie left of its sites, and above them.
                start = self.first_rows[diagonal] - self.first_rows[diagonal - 1]
                along = _rows(hidden[-1], start, sums.shape[1])
                above = _rows(hidden[-1], start - 1, sums.shape[1])
                states = torch.cat([along, above], -1).flatten(1, 2)
                sums = torch.baddbmm(sums.flatten(1, 2), states, self.state_weight).view(sums.shape)
                cell = _rows(cell, start, sums.shape[1])
            state, cell = lstm_step(sums, cell)
            hidden.append(state)
        left, right = torch.cat(hidden, 1).unbind(0)
        left = left.index_select(0, self.rank[0]).view(height, width, batch_size, -1)
        right = right.index_select(0, self.rank[1]).view(height, width, batch_size, -1)
        return left + F.pad(right[:-1], (0, 0, 0, 0, 0, 0, 1, 0))


def _rows(states: Tensor, start: int, length: int) -> Tensor:
    """Rows start … start + length − 1 of ``(2, rows, B, h)``, zero where there are none."""
    return F.pad(states, (0, 0, 0, 0, -start, start + length - states.shape[1]))
