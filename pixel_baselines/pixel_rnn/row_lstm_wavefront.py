"""Cached decoding of Row LSTM in wavefronts: its blind spot lets a row begin before the one above it has ended."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from pixel_baselines.decoding.head import HeadDecoder
from pixel_baselines.decoding.wavefront import Tap, WavefrontCache, WavefrontDecoder
from pixel_baselines.layers.channel_masks import channel_groups
from pixel_baselines.pixel_rnn.decoder import gate_order, group_weights
from pixel_baselines.pixel_rnn.network import PixelRNN
from pixel_baselines.pixel_rnn.row_lstm_layer import RowLSTMLayer
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.order import Wavefront

CELL_ABOVE = Tap(1, 0)


class RowLSTMWavefrontDecoder(WavefrontDecoder):
    """Decodes a Row LSTM on diagonals of sites, by products with a row for each site of a diagonal.

    Of the row above, the input convolution sees p = ``input_kernel // 2`` columns to the right, and a state sees
    the states of ``kernel // 2`` columns: a row may follow the row above it one column behind the larger of the two.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: PixelRNN, batch_size: int, condition: Condition | None) -> None:
        config, grid = model.config, model.grid
        layers = cast("list[RowLSTMLayer]", list(model.layers))
        reach = layers[0].reach
        width, depth, like = config.state_width, config.depth, model.input.weight
        assert model.input.bias is not None
        bias = model.input.bias.expand(batch_size, -1)
        super().__init__(grid, batch_size, model.embedding, model.input, bias, reach)
        label, order = model.class_index(condition, batch_size), gate_order(width, grid.channels, like.device)
        gate_bias = torch.stack([layer.gate_bias(label)[0, :, order] for layer in layers])
        self.gate_bias = gate_bias.repeat(1, self.most // batch_size, 1)

        # A state above that points to a later time is beyond the right edge, where there are zeros.
        above = [Tap(1, across) for across in range(-reach, reach + 1) if across < self.lag]
        along = [Tap(0, across) for across in range(-reach, 0)]
        state_weights = torch.stack([layer.state_weight[order].t() for layer in layers]).split(width, 1)
        map_weights = torch.stack([layer.masked_weight[order].t() for layer in layers]).split(2 * width, 1)
        self.state_matrices = {tap: state_weights[reach + tap.across].contiguous() for tap in above}
        self.map_matrices = {tap: map_weights[reach + tap.across].contiguous() for tap in along}
        self.states = WavefrontCache(like, depth, width, self, above)
        self.cells = WavefrontCache(like, depth, width, self, [CELL_ABOVE])
        self.maps = WavefrontCache(like, depth, 2 * width, self, along)

        self.groups = [channel_groups(count, grid.channels) for count in (2 * width, width)]
        own_site = map_weights[reach]
        self.weights = [
            [
                group_weights(own_site[index], layer.output.masked_weight.t(), channel, grid.channels)
                for index, layer in enumerate(layers)
            ]
            for channel in range(grid.channels)
        ]
        self.known = like.new_zeros(depth, self.most, 4 * width)
        self.scratch = like.new_zeros(5 * self.most * width)
        self.top = like.new_zeros(self.most, 2 * width)
        self.head = HeadDecoder(*model.head_layers, self.top, grid.channels)

    def _begin(self, wavefront: Wavefront) -> None:
        known = self.known[:, : self.count(wavefront)]
        known.copy_(self.gate_bias[:, : self.count(wavefront)])
        self.states.add_to(known, wavefront, self.state_matrices)
        self.maps.add_to(known, wavefront, self.map_matrices)
        for features in (self.states, self.cells, self.maps):
            features.begin(wavefront)

    def _step(self, wavefront: Wavefront) -> Tensor:
        count, channel = self.count(wavefront), wavefront.channel
        wide, own = (groups[channel] for groups in self.groups)
        size = own.stop - own.start
        gates = slice(4 * own.start, 4 * own.stop)
        scratch = self.scratch[: 5 * size * count].view(count, 5 * size)
        output_gate, forget, update, candidate, cell_tanh = scratch.split(size, 1)
        maps = [*self.maps.at(wavefront), self.top[:count]]
        states, cells, cells_above = (
            self.states.at(wavefront), self.cells.at(wavefront), self.cells.at(wavefront, CELL_ABOVE)
        )  # fmt: skip
        self.read_symbols(wavefront, wide, out=maps[0][:, wide])
        for layer, (gate_weight, output_weight) in enumerate(self.weights[channel]):
            known = self.known[layer, :count, gates]
            torch.addmm(known, maps[layer][:, : wide.stop], gate_weight, out=scratch[:, : 4 * size])
            scratch[:, : 3 * size].sigmoid_()
            candidate.tanh_()
            cell = cells[layer][:, own]
            torch.mul(cells_above[layer][:, own], forget, out=cell).addcmul_(update, candidate)
            torch.tanh(cell, out=cell_tanh)
            torch.mul(output_gate, cell_tanh, out=states[layer][:, own])
            seen = states[layer][:, : own.stop]
            torch.addmm(maps[layer][:, wide], seen, output_weight, out=maps[layer + 1][:, wide])
        return self.head.logits(channel, count)
