"""Cached decoding of Diagonal BiLSTM in raster order."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from pixel_baselines.pixel_rnn.decoder import LayerSite, PixelRNNDecoder
from pixel_baselines.pixel_rnn.diagonal_bilstm_layer import DiagonalBiLSTMLayer
from pixel_baselines.pixel_rnn.network import PixelRNN
from rasterwise.symbols.condition import Condition


class DiagonalBiLSTMDecoder(PixelRNNDecoder):
    """Decodes a Diagonal BiLSTM. It keeps one row of states of each direction.

    The right-to-left LSTM, moved down a row, reads only rows that are finished: it runs over the row above
    when a row begins, all layers in one batched step a column.

    Args:
        model: A DiagonalBiLSTM in evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: PixelRNN, batch_size: int, condition: Condition | None) -> None:
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
        self.right_along = torch.stack([layer.state_weight[1, :width] for layer in layers])
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
        """Views for one column: gates, states right of it, sigmoid part, tanh part, the four gates, state."""
        gates = self.right_gates[:, column]
        along = self.right[:, column + 1] if column + 1 < self.columns else None
        squashed, candidate = gates.split([3 * self.width, self.width], -1)
        return gates, along, squashed, candidate, list(gates.chunk(4, -1)), self.right[:, column]

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
        for gates, along, squashed, candidate, (output_gate, forget, update, _), state in self.right_steps:
            if along is not None:
                torch.baddbmm(gates, along, self.right_along, out=gates)
            squashed.sigmoid_()
            candidate.tanh_()
            self.right_cell.mul_(forget).addcmul_(update, candidate)
            torch.tanh(self.right_cell, out=self.right_tanh)
            torch.mul(output_gate, self.right_tanh, out=state)
