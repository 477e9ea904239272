"""Diagonal BiLSTM: two LSTMs that go along the diagonals, one from each upper corner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.channel_masks import channel_mask
from pixel_baselines.pixel_rnn import PixelRNN, PixelRNNConfig, RecurrentLayer, fan_in_uniform, lstm_step
from pixel_baselines.pixel_rnn_decoder import LayerSite, PixelRNNDecoder
from rasterwise.autoregressive import Decoder
from rasterwise.condition import Condition


@dataclass(frozen=True, kw_only=True)
class DiagonalBiLSTMConfig(PixelRNNConfig):
    """A Diagonal BiLSTM: its fields are those of every PixelRNN."""


@dataclass(frozen=True)
class Diagonals:
    """The order in which a map is read diagonal by diagonal; a step computes one diagonal.

    The paper skews the map, so that diagonals become columns, and half of the skewed map is padding. Here the
    sites of each diagonal lie side by side without the padding, which halves the arithmetic.

    Attributes:
        order: Site (in raster order) at each place, diagonal after diagonal, each from its top row down:
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
    """

    input_mask: Tensor
    order: Tensor
    place: Tensor

    def __init__(self, config: DiagonalBiLSTMConfig) -> None:
        super().__init__(config, directions=2)
        grid, features = config.grid, config.width
        mask = channel_mask(features, config.state_width, grid.channels, "B").repeat(4, 1).t()
        self.register_buffer("input_mask", mask.contiguous(), persistent=False)
        self.input_weight = fan_in_uniform(2, features, self.gates, fan_in=features)
        # Rows: the state beside (the cell's own row), then the state above.
        self.state_weight = fan_in_uniform(2, features, self.gates, fan_in=features)
        columns = grid.width + DiagonalBiLSTM.extra_columns
        left = Diagonals.of(grid.height, columns, mirrored=False)
        right = Diagonals.of(grid.height, columns, mirrored=True)
        self.lengths, self.first_rows = left.lengths, left.first_rows
        self.register_buffer("order", torch.cat([left.order, right.order]), persistent=False)
        places = torch.stack([left.order.argsort(), right.order.argsort()])
        self.register_buffer("place", places, persistent=False)

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
                beside = _rows(hidden[-1], start, sums.shape[1])
                above = _rows(hidden[-1], start - 1, sums.shape[1])
                states = torch.cat([beside, above], -1).flatten(1, 2)
                sums = torch.baddbmm(sums.flatten(1, 2), states, self.state_weight).view(sums.shape)
                cell = _rows(cell, start, sums.shape[1])
            state, cell = lstm_step(sums, cell)
            hidden.append(state)
        left, right = torch.cat(hidden, 1).unbind(0)
        left = left.index_select(0, self.place[0]).view(height, width, batch_size, -1)
        right = right.index_select(0, self.place[1]).view(height, width, batch_size, -1)
        return left + F.pad(right[:-1], (0, 0, 0, 0, 0, 0, 1, 0))


def _rows(states: Tensor, start: int, length: int) -> Tensor:
    """Rows start … start + length − 1 of ``(2, rows, B, h)``, zero where there are none."""
    return F.pad(states, (0, 0, 0, 0, -start, start + length - states.shape[1]))


class DiagonalBiLSTM(PixelRNN):
    """PixelRNN with Diagonal BiLSTM layers: every site sees all earlier ones, in every layer.

    Args:
        config: Its architecture and its data.

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu, Pixel Recurrent Neural Networks, 2016 (arXiv 1601.06759),
        section 3.2.

    Example:
        >>> from rasterwise.grid import Grid
        >>> config = DiagonalBiLSTMConfig(grid=Grid(1, 5, 4, 2), classes=("3", "8"), depth=2, width=16)
        >>> model = DiagonalBiLSTM(config).eval()
        >>> symbols = model.sample(2, Condition(torch.tensor([0, 1])))
        >>> symbols.shape, model.log_prob(symbols).shape
        (torch.Size([2, 1, 5, 4]), torch.Size([2]))
    """

    kind = "diagonal-bilstm"
    config_class = DiagonalBiLSTMConfig
    config: DiagonalBiLSTMConfig
    # The paper's map is as wide as the grid, and then one earlier symbol is cut off, against the paper's own
    # claim: mask A puts the last symbol of a row into no site of its row, so that the right-to-left LSTM
    # never reads it, and the sites of the row below that are further left than the first convolution
    # reaches do not see it. One more column, a site after the row's last symbol, closes the gap.
    extra_columns = 1

    def build_layer(self) -> DiagonalBiLSTMLayer:
        return DiagonalBiLSTMLayer(self.config)

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return DiagonalBiLSTMDecoder(self, batch_size, condition)


class DiagonalBiLSTMDecoder(PixelRNNDecoder):
    """Carries one row of states of each direction.

    The right-to-left LSTM, moved down a row, reads only rows that are finished: it runs over the row above
    when a row starts, all layers in one batched step a column.
    """

    @torch.no_grad()
    def __init__(self, model: DiagonalBiLSTM, batch_size: int, condition: Condition | None) -> None:
        super().__init__(model, batch_size, condition)
        width, depth, columns = model.config.state_width, model.config.depth, self.columns
        self.width = width
        layers = cast(list[DiagonalBiLSTMLayer], list(model.layers))
        order = self.gate_order
        biases = [layer.gate_bias(self.label) for layer in layers]
        self.left_bias = torch.stack([bias[0, :, order] for bias in biases])[:, None]
        self.left_above = torch.stack([layer.state_weight[0, width:, order] for layer in layers])
        self.right_bias = torch.stack([bias[1] for bias in biases])[:, None]
        self.right_input = torch.stack([layer.masked_weight[1] for layer in layers])
        self.right_beside = torch.stack([layer.state_weight[1, :width] for layer in layers])
        self.right_above = torch.stack([layer.state_weight[1, width:] for layer in layers])
        # A column's slot holds the left state of the column before it, then the map: one window of memory.
        self.slots = self.zeros(depth, columns + 1, batch_size, 3 * width)
        self.from_above = self.zeros(depth, columns, batch_size, 4 * width)
        self.cell = self.zeros(depth, batch_size, width)
        self.mixed = self.zeros(depth, batch_size, width)
        self.right = self.zeros(depth, columns, batch_size, width)
        self.right_gates = self.zeros(depth, columns, batch_size, 4 * width)
        self.right_cell = self.zeros(depth, batch_size, width)
        self.right_tanh = self.zeros(depth, batch_size, width)
        self.right_steps = [self._right_step(column) for column in reversed(range(columns))]
        along = [torch.cat([layer.state_weight[0, :width], layer.masked_weight[0]]) for layer in layers]
        self.prepare(model, [weight[:, order] for weight in along])

    def layer_site(self, layer: int, column: int) -> LayerSite:
        return LayerSite(
            map=self.slots[layer, column, :, self.width :],
            window=self.slots[layer, column],
            from_above=self.from_above[layer, column],
            cell=self.cell[layer],
            hidden=self.slots[layer, column + 1, :, : self.width],
            added=self.right[layer, column],
            mixed=self.mixed[layer],
        )

    def _right_step(self, column: int) -> tuple[Tensor, Tensor | None, Tensor, Tensor, list[Tensor], Tensor]:
        """Views for one column: gates, the states beside it, sigmoid part, tanh part, the four gates, state."""
        gates = self.right_gates[:, column]
        beside = self.right[:, column + 1] if column + 1 < self.columns else None
        squashed, candidate = gates.split([3 * self.width, self.width], -1)
        return gates, beside, squashed, candidate, list(gates.chunk(4, -1)), self.right[:, column]

    def read_rows_above(self, row: int) -> None:
        self.cell.zero_()
        if row == 0:
            self.from_above.copy_(self.left_bias.expand_as(self.from_above))
            return
        states = self.slots[:, 1:, :, : self.width].flatten(1, 2)
        torch.bmm(states, self.left_above, out=self.from_above.flatten(1, 2))
        self.from_above.add_(self.left_bias)
        self._run_right_to_left()

    def _run_right_to_left(self) -> None:
        """The states of the row above from right to left, written over those of the row above it."""
        maps, sums = self.slots[:, :-1, :, self.width :].flatten(1, 2), self.right_gates.flatten(1, 2)
        torch.bmm(maps, self.right_input, out=sums)
        torch.baddbmm(sums, self.right.flatten(1, 2), self.right_above, out=sums)
        self.right_gates.add_(self.right_bias)
        self.right_cell.zero_()
        for gates, beside, squashed, candidate, (output_gate, forget, update, _), state in self.right_steps:
            if beside is not None:
                torch.baddbmm(gates, beside, self.right_beside, out=gates)
            squashed.sigmoid_()
            candidate.tanh_()
            self.right_cell.mul_(forget).addcmul_(update, candidate)
            torch.tanh(self.right_cell, out=self.right_tanh)
            torch.mul(output_gate, self.right_tanh, out=state)
