"""Cached decoding of PixelCNN++: each activation of each resolution is computed once; memory grows with the width.

When a row of a resolution begins, its downward stream is computed for the whole row, and with it all that the
row's down-right stream reads of the rows above. A site then costs the rest of its down-right stream. A lower
resolution's row begins with every second row of the one above it, and its sites with every second site of those.

Layers of the downward stream (`RowConv`, `RowUpsample`) keep the rows that they read. Layers of the down-right
stream (`SiteConv`, `SiteUpsample`) keep one row of inputs, filled from the left over the row before, and one row
of sums, which begin as what comes from the row above. A site adds its window of inputs to its sum, in one matrix
product on views that are made once.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.pixelcnn_pp.cached_layers import (
    RowConv,
    RowUpsample,
    SiteConv,
    SiteState,
    SiteUpsample,
    _pointwise,
    concat_elu_row,
)
from pixel_baselines.pixelcnn_pp.logistic_mixture import MixtureDecoder, neighbours
from pixel_baselines.pixelcnn_pp.network import GatedBlock, Level, PixelCNNPPNetwork, TwoStreamBlock
from rasterwise.decoding.decoder import CaptureRegion, Decoder
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.order import raster_order


class BlockStream:
    """A `TwoStreamBlock`: its downward block by rows, its down-right block by sites."""

    def __init__(self, block: TwoStreamBlock, class_index: Tensor, state: SiteState, width: int) -> None:
        down, right, batch_size = block.down, block.right, len(class_index)
        self.state = state
        self.down_in = RowConv(down.conv_in, batch_size, width)
        self.down_out = RowConv(down.conv_out, batch_size, width)
        self.down_label, self.right_label = _label(down, class_index), _label(right, class_index)
        # The down-right block reads the downward one's output and, on the way up, a skip; the other, a skip.
        assert right.beside is not None
        self.right_down, self.right_skip = _pointwise(right.beside).tensor_split([2 * state.value.shape[1]])
        self.right_bias = right.beside.bias
        if down.beside is not None:
            self.down_skip = _pointwise(down.beside)
            self.down_in.bias = self.down_in.bias + down.beside.bias
        self.right_in = SiteConv(right.conv_in, batch_size, width)
        self.right_out = SiteConv(right.conv_out, batch_size, width)
        # Views of the hidden activations before and after concat-ELU, by column.
        self.hidden = [output[:, None] for output in self.right_in.outputs]
        self.hidden_pairs = [site.view(batch_size, 2, -1) for site in self.right_out.inputs]

    def start_row(self, x: Tensor, elu: Tensor, skip: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the downward block on a row: value ``(B, W, D)`` and concat-ELU in, the same out."""
        self.down_in.append(elu)
        hidden = self.down_in.output()
        if skip is not None:
            hidden += skip @ self.down_skip
        self.down_out.append(concat_elu_row(hidden))
        gates = self.down_out.output()
        if self.down_label is not None:
            gates += self.down_label
        x = x + F.glu(gates, -1)
        elu = concat_elu_row(x)
        self.right_in.start_row(torch.matmul(elu, self.right_down).add_(self.right_bias))
        self.right_out.start_row(self.right_label)
        return x, elu

    def step(self, column: int, skip: Tensor | None = None) -> None:
        """Run the down-right block at a site, on the resolution's state."""
        state = self.state
        state.write_elu(self.right_in.inputs[column])
        self.right_in.step(column)
        if skip is not None:
            self.right_in.outputs[column].addmm_(skip, self.right_skip)
        torch.mul(self.hidden[column], state.signs, out=self.hidden_pairs[column])
        F.elu_(self.right_out.inputs[column])
        self.right_out.step(column)
        state.add(F.glu(self.right_out.outputs[column], -1))


class LevelStream:
    """A `Level`, with the ones below it."""

    def __init__(self, level: Level, class_index: Tensor) -> None:
        batch_size = len(class_index)
        descending = cast("list[TwoStreamBlock]", level.descending)
        ascending = cast("list[TwoStreamBlock]", level.ascending)
        self.state = SiteState(batch_size, descending[0].right.conv_in.bias)
        self.descending = [BlockStream(block, class_index, self.state, level.width) for block in descending]
        self.ascending = [BlockStream(block, class_index, self.state, level.width) for block in ascending]
        # A skip is the input of a block on the way down, which that block keeps; the last is nobody's input.
        self.skips = [block.right_in.inputs for block in reversed(self.descending)]
        self.lower: LevelStream | None = None
        if level.lower is not None:
            self.lower = LevelStream(level.lower, class_index)
            self.downsample_down = RowConv(level.shrink.down, batch_size, level.width)
            self.downsample_right = SiteConv(level.shrink.right, batch_size, level.width)
            self.downsampled = [output[:, None] for output in self.downsample_right.outputs]
            self.upsample_down = RowUpsample(level.grow.down, batch_size, level.width)
            self.upsample_right = SiteUpsample(level.grow.right, batch_size, level.width)
            self.last_skip = torch.empty_like(self.state.flat)
            self.skips.insert(0, (self.last_skip,) * level.width)
        self.row = 0

    def start_row(self, row: int, x: Tensor) -> Tensor:
        """Begin a row: run its downward stream ``(B, W, D)`` and prepare its down-right stream."""
        self.row = row
        elu = concat_elu_row(x)
        skips = [elu]
        for block in self.descending:
            x, elu = block.start_row(x, elu)
            skips.append(elu)
        if self.lower is None:
            skips.pop()
        else:
            self.downsample_down.append(x)
            if row % 2 == 0:
                self.downsample_right.start_row()
                self.upsample_down.append(self.lower.start_row(row // 2, self.downsample_down.output()))
            else:
                self.upsample_right.start_odd_row()
            x = self.upsample_down.output(row % 2)
            elu = concat_elu_row(x)
        for block in self.ascending:
            x, elu = block.start_row(x, elu, skips.pop())
        return x

    def step(self, column: int) -> None:
        """Take the down-right stream at a site from the resolution's input to its output, in its state."""
        state = self.state
        for block in self.descending:
            block.step(column)
        if self.lower is not None:
            state.write_elu(self.last_skip)
            self.downsample_right.inputs[column].copy_(state.value)
            if self.row % 2 == 0 and column % 2 == 0:
                self._step_lower(self.lower, column // 2)
            state.set(self.upsample_right.outputs[column])
        for block, skip in zip(self.ascending, self.skips, strict=True):
            block.step(column, skip[column])

    def _step_lower(self, lower: LevelStream, column: int) -> None:
        self.downsample_right.step(column)
        lower.state.set(self.downsampled[column])
        lower.step(column)
        self.upsample_right.low[column].copy_(lower.state.value)
        self.upsample_right.step(column)


class PixelCNNPPDecoder(Decoder):
    """Decodes a PixelCNN++ in raster order: the network once a site, the likelihood once a channel.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: PixelCNNPPNetwork, batch_size: int, condition: Condition | None) -> None:
        super().__init__(model.grid, batch_size, raster_order(model.grid, model.device))
        self.mixture = model.mixture
        width, channels = self.grid.width, self.grid.channels
        self.level = LevelStream(model.level, model.class_index(condition, batch_size))
        self.first_down = RowConv(model.first_down, batch_size, width)
        self.first_above = RowConv(model.first_above, batch_size, width)
        # One column more: what is written at column x is the pixel before it, and the last has one too.
        self.first_left = SiteConv(model.first_left, batch_size, width + 1)
        self.first = [output[:, None] for output in self.first_left.outputs]
        self.head, self.head_bias = _pointwise(model.last), model.last.bias
        # What a symbol of each channel adds to a pixel's features; the ones come with the first channel.
        every_symbol = torch.arange(self.grid.levels, device=model.device).view(-1, 1, 1, 1)
        features = model.features(model.embed(every_symbol.expand(-1, channels, -1, -1))).flatten(1)
        size = (features.shape[1] - 1) // channels
        starts = [0] + [1 + size * channel for channel in range(1, channels)]
        ends = [1 + size * channel for channel in range(1, channels + 1)]
        spans = list(zip(starts, ends, strict=True))
        self.tables = [features[:, start:end].contiguous() for start, end in spans]
        self.inputs = [[site[:, start:end] for start, end in spans] for site in self.first_left.inputs]
        self.relative = model.config.relative_means
        # Values of this row and of the one above, after a zero on the left.
        values = torch.zeros(2, batch_size, channels, width + 1, dtype=model.value_dtype, device=model.device)
        self.row, self.above = values.unbind()
        self.rows_a_period = 2 ** (model.config.resolutions - 1)  # of which the coarsest resolution has one

    def capture_regions(self) -> list[CaptureRegion]:
        row_size = self.grid.width * self.grid.channels
        periods, rest = divmod(self.grid.height, self.rows_a_period)
        return [
            CaptureRegion(self.rows_a_period * row_size, periods),
            *[CaptureRegion(row_size, 1)] * rest,
        ]

    def _logits(self) -> Tensor:
        row, column, channel = self.grid.site(self.index)
        if channel == 0:
            raw = self._run_network(row, column)
            self.pixel = MixtureDecoder(self.mixture, raw, self._reference(column))
        return self.pixel.logits()[:, None]

    def _advance(self, symbols: Tensor) -> None:
        _, column, channel = self.grid.site(self.index)
        symbols = symbols[:, 0]
        self.inputs[column + 1][channel].copy_(self.tables[channel].index_select(0, symbols))
        last = channel + 1 == self.grid.channels
        if last and not self.relative:
            return
        values = self.mixture.values(symbols, self.pixel.log_weights.dtype)
        if self.relative:
            self.row[:, channel, column + 1].copy_(values)
        if not last:
            self.pixel.advance(values)

    def _reference(self, column: int) -> Tensor | None:
        if not self.relative:
            return None
        left, above_left, above = self.row[..., column], self.above[..., column], self.above[..., column + 1]
        return neighbours(left, above, above_left, self.mixture.components)

    def _run_network(self, row: int, column: int) -> Tensor:
        """The likelihood's parameters ``(B, P)`` at a site."""
        if column == 0:
            self._start_row(row)
        self.first_left.step(column)
        self.level.state.set(self.first[column])
        self.level.step(column)
        return torch.addmm(self.head_bias, F.elu(self.level.state.value), self.head)

    def _start_row(self, row: int) -> None:
        pixels = torch.stack(self.first_left.inputs[1:], 1)  # of the row above; zeros above the first row
        if self.relative:
            self.above.copy_(self.row)
        self.first_down.append(pixels)
        self.first_above.append(pixels)
        self.first_left.start_row(F.pad(self.first_above.output(), (0, 0, 0, 1)))
        self.level.start_row(row, self.first_down.output())


def _label(block: GatedBlock, class_index: Tensor) -> Tensor | None:
    """What the condition adds to a block's gates, ``(B, 1, 2D)``."""
    return None if block.label is None else block.label(class_index)[:, None]
