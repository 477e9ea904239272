"""Cached decoding of Row LSTM in raster order."""

from __future__ import annotations

from typing import cast

import torch

from pixel_baselines.pixel_rnn.decoder import LayerSite, PixelRNNDecoder
from pixel_baselines.pixel_rnn.network import PixelRNN
from pixel_baselines.pixel_rnn.row_lstm_layer import RowLSTMLayer
from rasterwise.symbols.condition import Condition


class RowLSTMDecoder(PixelRNNDecoder):
    """Decodes a Row LSTM. It keeps the states of one row.

    What a row gets from the row above is computed for all of it at once.

    Args:
        model: A RowLSTM in evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: PixelRNN, batch_size: int, condition: Condition | None) -> None:
        super().__init__(model, batch_size, condition)
        depth, columns = model.config.depth, self.columns
        layers = cast(list[RowLSTMLayer], list(model.layers))
        self.reach, width = layers[0].reach, model.config.state_width
        order = self.gate_order
        self.bias = torch.stack([layer.gate_bias(self.label)[0, :, order] for layer in layers])[:, None]
        self.state_weight = torch.stack([layer.state_weight[order].t() for layer in layers])
        # States of all columns: of the row above until a site's own are written over them.
        self.hidden = self.zeros(depth, columns + 2 * self.reach, batch_size, width)
        self.cell = self.zeros(depth, columns, batch_size, width)
        self.neighbours = self.zeros(depth, columns, batch_size, (2 * self.reach + 1) * width)
        self.from_above = self.zeros(depth, columns, batch_size, 4 * width)
        # The map of one row, batch first: the window of taps of an image is then contiguous.
        self.map = self.zeros(depth, batch_size, self.reach + columns, 2 * width)
        self.prepare(model, [layer.masked_weight[order].t() for layer in layers])

    def layer_site(self, layer: int, column: int) -> LayerSite:
        return LayerSite(
            map=self.map[layer, :, self.reach + column],
            window=self.map[layer, :, column : column + self.reach + 1].view(self.batch_size, -1),
            from_above=self.from_above[layer, column],
            cell=self.cell[layer, column],
            hidden=self.hidden[layer, self.reach + column],
        )

    def read_rows_above(self, row: int) -> None:
        if row == 0:
            self.from_above.copy_(self.bias.expand_as(self.from_above))
            return
        for tap, states in enumerate(self.neighbours.chunk(2 * self.reach + 1, -1)):
            states.copy_(self.hidden[:, tap : tap + self.columns])
        torch.bmm(self.neighbours.flatten(1, 2), self.state_weight, out=self.from_above.flatten(1, 2))
        self.from_above.add_(self.bias)
