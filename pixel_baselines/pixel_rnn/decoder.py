"""Cached decoding of a PixelRNN: a site costs its own activations, with everything that it reads laid out once."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.decoding.head import HeadDecoder
from pixel_baselines.layers.channel_masks import channel_groups
from pixel_baselines.pixel_rnn.network import PixelRNN, RecurrentLayer
from rasterwise.decoding.decoder import CaptureRegion, Decoder
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.order import raster_order


@dataclass(frozen=True)
class LayerSite:
    """Where a layer's activations at one column live: views of buffers, overwritten row after row.

    Attributes:
        map: The layer's input ``(B, 2h)``.
        window: All that the gates read along the row, ending in ``map`` itself ``(B, context + 2h)``.
        from_above: What the gates' sums get from earlier rows, and their bias ``(B, 4h)``.
        cell: The carried cell ``(B, h)``.
        hidden: The hidden state ``(B, h)``.
        added: Another direction's state, added before the layer's output, or None.
        mixed: Where that sum goes.
    """

    map: Tensor
    window: Tensor
    from_above: Tensor
    cell: Tensor
    hidden: Tensor
    added: Tensor | None = None
    mixed: Tensor | None = None


class InputStep(NamedTuple):
    """The views and weights of one channel group's step through the input convolution."""

    from_above: Tensor
    window: Tensor
    weight: Tensor
    map: Tensor


class LayerStep(NamedTuple):
    """The views and weights of one channel group's step through a layer, in the order of their use."""

    from_above: Tensor
    window: Tensor
    gate_weight: Tensor
    gates: Tensor
    squashed: Tensor
    candidate: Tensor
    cell: Tensor
    forget: Tensor
    update: Tensor
    cell_tanh: Tensor
    output_gate: Tensor
    hidden: Tensor
    added: Tensor | None
    mixed: Tensor | None
    map: Tensor
    state: Tensor
    output_weight: Tensor
    next_map: Tensor


def gate_order(state_width: int, channels: int, device: torch.device) -> Tensor:
    """The order of the gates ``(4h,)`` in which those of a channel group lie side by side."""
    features = torch.arange(4 * state_width, device=device).view(4, -1)
    return torch.cat([features[:, own].flatten() for own in channel_groups(state_width, channels)])


def group_weights(gates: Tensor, output: Tensor, channel: int, channels: int) -> tuple[Tensor, Tensor]:
    """What a channel group needs of a layer's weights, each a matrix of its own.

    Args:
        gates: ``(context + 2h, 4h)``, in ``gate_order``.
        output: ``(h, 2h)``.
        channel: Which group.
        channels: Of how many.
    """
    own, group = (channel_groups(count, channels)[channel] for count in output.shape)
    seen = len(gates) - output.shape[1] + group.stop
    return (
        gates[:seen, 4 * own.start : 4 * own.stop].contiguous(),
        output[: own.stop, group].contiguous(),
    )


class PixelRNNDecoder(Decoder):
    """What the decoders of both PixelRNNs share: input convolution, the step of a layer at a site, output.

    What a row gets from the rows above it is computed for the whole row when it begins. A site then costs
    two matrix products and six or seven elementwise operations a layer, on views made once: with matrices
    this small an operation's dispatch takes as long as its arithmetic. The symbols of a site are steps that
    compute their own channel group alone; the gates of a group therefore lie side by side (``gate_order``).
    All buffers hold a row or less: memory does not grow with the height.

    Args:
        model: Whose weights are read, once, here.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    def __init__(self, model: PixelRNN, batch_size: int, condition: Condition | None) -> None:
        super().__init__(model.grid, batch_size, raster_order(model.grid, model.device))
        self.dtype, self.device = model.input.weight.dtype, model.device
        self.label = model.class_index(condition, batch_size)
        self.columns = self.grid.width + model.extra_columns
        self.gate_order = gate_order(model.config.state_width, self.grid.channels, self.device)

    @abstractmethod
    def layer_site(self, layer: int, column: int) -> LayerSite:
        """The views of one layer at one column."""

    @abstractmethod
    def read_rows_above(self, row: int) -> None:
        """Compute ``from_above`` and ``added`` of a row for all its columns at once."""

    def groups(self, features: int) -> list[slice]:
        """The channel groups of a feature axis."""
        return channel_groups(features, self.grid.channels)

    def zeros(self, *shape: int) -> Tensor:
        """A buffer of the weights' dtype on their device."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def prepare(self, model: PixelRNN, gate_weights: list[Tensor]) -> None:
        """Lay out weights and views; a subclass calls it when its buffers stand.

        Args:
            model: Whose weights are read.
            gate_weights: Of each layer ``(context + 2h, 4h)``, from a window to the gates in ``gate_order``.
        """
        depth, width, channels = model.config.depth, model.config.state_width, range(self.grid.channels)
        self.top = self.zeros(self.batch_size, 2 * width)
        self._prepare_input(model)
        self.head = HeadDecoder(*model.head_layers, self.top, self.grid.channels)
        output_weights = [cast(RecurrentLayer, layer).output.masked_weight.t() for layer in model.layers]
        self.input_steps: list[list[InputStep]] = []
        self.layer_steps: list[list[list[LayerStep]]] = []
        weights = [
            [
                group_weights(gate_weights[layer], output_weights[layer], channel, self.grid.channels)
                for layer in range(depth)
            ]
            for channel in channels
        ]
        # One layer after another writes its gates and its cell's tanh here.
        scratch = [
            self.zeros(self.batch_size, 5 * (own.stop - own.start))
            for own in channel_groups(width, len(channels))
        ]
        for column in range(self.columns):
            sites = [self.layer_site(layer, column) for layer in range(depth)]
            maps = [site.map for site in sites[1:]] + [self.top]
            self.input_steps.append([self._input_step(sites[0].map, column, channel) for channel in channels])
            self.layer_steps.append(
                [
                    [
                        self._layer_step(
                            sites[layer], maps[layer], weights[channel][layer], scratch[channel], channel
                        )
                        for layer in range(depth)
                    ]
                    for channel in channels
                ]
            )

    def _prepare_input(self, model: PixelRNN) -> None:
        features, self.input_reach = model.embedding.features, model.input.left
        self.table = model.embedding.table(self.dtype, self.device)
        weight = model.input.masked_weight
        self.above_weight, self.input_bias = weight[:, :, :-1].contiguous(), model.input.bias
        self.along_weight = model.input.site_matrix()
        self.rows_above = self.zeros(self.batch_size, features, self.input_reach, self.grid.width)
        self.row_inputs = self.zeros(self.batch_size, self.input_reach + self.columns, features)
        self.input_from_above = self.zeros(self.columns, self.batch_size, len(weight))
        columns = self.row_inputs[:, self.input_reach :].unbind(1)
        self.symbol_inputs = [[column[:, symbol] for symbol in self.groups(features)] for column in columns]

    def _input_step(self, destination: Tensor, column: int, channel: int) -> InputStep:
        features = self.row_inputs.shape[2]
        group = self.groups(destination.shape[1])[channel]
        # Mask A: of its own site a group sees the symbols before its own.
        seen = self.input_reach * features + self.groups(features)[channel].start
        window = self.row_inputs[:, column : column + self.input_reach + 1].view(self.batch_size, -1)
        return InputStep(
            from_above=self.input_from_above[column][:, group],
            window=window[:, :seen],
            weight=self.along_weight[:seen, group],
            map=destination[:, group],
        )

    def _layer_step(
        self, site: LayerSite, next_map: Tensor, weights: tuple[Tensor, Tensor], scratch: Tensor, channel: int
    ) -> LayerStep:
        own, group = self.groups(site.cell.shape[1])[channel], self.groups(site.map.shape[1])[channel]
        size = own.stop - own.start
        state = site.hidden if site.mixed is None else site.mixed
        output_gate, forget, update, candidate, cell_tanh = scratch.split(size, 1)
        return LayerStep(
            from_above=site.from_above[:, 4 * own.start : 4 * own.stop],
            window=site.window[:, : len(weights[0])],
            gate_weight=weights[0],
            gates=scratch[:, : 4 * size],
            squashed=scratch[:, : 3 * size],
            candidate=candidate,
            cell=site.cell[:, own],
            forget=forget,
            update=update,
            cell_tanh=cell_tanh,
            output_gate=output_gate,
            hidden=site.hidden[:, own],
            added=None if site.added is None else site.added[:, own],
            mixed=None if site.mixed is None else site.mixed[:, own],
            map=site.map[:, group],
            state=state[:, : own.stop],
            output_weight=weights[1],
            next_map=next_map[:, group],
        )

    def capture_regions(self) -> list[CaptureRegion]:
        row_size = self.grid.width * self.grid.channels
        # The first row does less.
        return [CaptureRegion(row_size, 1), CaptureRegion(row_size, self.grid.height - 1)]

    def _logits(self) -> Tensor:
        site = self.grid.site(self.index)
        if site.column == site.channel == 0:
            self._start_row(site.row)
        self._run_layers(site.column, site.channel)
        return self.head.logits(site.channel)[:, None]

    def _advance(self, symbols: Tensor) -> None:
        site = self.grid.site(self.index)
        self.symbol_inputs[site.column][site.channel].copy_(self.table.index_select(0, symbols[:, 0]))

    def _start_row(self, row: int) -> None:
        width, reach = self.grid.width, self.input_reach
        if row:
            for column in range(width, self.columns):
                for channel in range(self.grid.channels):
                    self._run_layers(column, channel)
            self.rows_above[:, :, :-1] = self.rows_above[:, :, 1:].clone()
            self.rows_above[:, :, -1] = self.row_inputs[:, reach : reach + width].transpose(1, 2)
        padded = F.pad(self.rows_above, (reach, reach + self.columns - width))
        above = F.conv2d(padded, self.above_weight, self.input_bias)
        self.input_from_above.copy_(above[:, :, 0].permute(2, 0, 1))
        self.read_rows_above(row)

    def _run_layers(self, column: int, channel: int) -> None:
        """One channel group of a site, from the symbols before it to the top of the LSTM layers."""
        first = self.input_steps[column][channel]
        torch.addmm(first.from_above, first.window, first.weight, out=first.map)
        for step in self.layer_steps[column][channel]:
            torch.addmm(step.from_above, step.window, step.gate_weight, out=step.gates)
            step.squashed.sigmoid_()
            step.candidate.tanh_()
            step.cell.mul_(step.forget).addcmul_(step.update, step.candidate)
            torch.tanh(step.cell, out=step.cell_tanh)
            torch.mul(step.output_gate, step.cell_tanh, out=step.hidden)
            if step.added is not None:
                torch.add(step.hidden, step.added, out=step.mixed)
            torch.addmm(step.map, step.state, step.output_weight, out=step.next_map)
