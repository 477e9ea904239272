"""The cached walk of PixelCNN++: each activation of each resolution is computed once, memory grows with rows.

Two programs of small layers. When a row of a resolution begins, its downward stream is computed for the whole
row, and with it all that the row's down-right stream reads of the rows above; a site then costs the rest of
its down-right stream. A lower resolution's row begins with every second row of the one above it, and its
sites with every second site of those.

A layer of the first kind (`RowConv`, `RowUpsample`) keeps the rows that it reads. A layer of the second kind
(`SiteConv`, `SiteUpsample`) keeps one row of inputs, filled from the left over the row before, and one row of
sums, which hold what came from above when the row begins. A site adds its window of inputs to its sum, in
one matrix product on views that are laid out once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.logistic_mixture import MixtureWalk
from pixel_baselines.shifted_conv import DownRightShiftedUpsample, DownShiftedUpsample, WeightNormConv2d
from rasterwise.autoregressive import Decoder
from rasterwise.condition import Condition
from rasterwise.walk import Stretch

if TYPE_CHECKING:
    from pixel_baselines.pixelcnn_pp import GatedBlock, Level, PixelCNNPP, TwoStreamBlock


def concat_elu_row(x: Tensor) -> Tensor:
    """ELU of x and of -x, channels last: ``(B, W, D)`` to ``(B, W, 2D)``."""
    return F.elu(torch.cat([x, -x], -1))


class RowConv:
    """A down-shifted convolution, a row at a time."""

    def __init__(self, layer: WeightNormConv2d, batch_size: int, width: int) -> None:
        weight = layer.weight
        out, channels, rows, columns = weight.shape
        self.matrix = weight.permute(2, 3, 1, 0).reshape(-1, out)
        self.bias: Tensor = layer.bias
        self.rows = weight.new_zeros(batch_size, rows, width + columns - 1, channels)
        self.newest = self.rows[:, -1, columns // 2 : columns // 2 + width]
        self.out_shape = (batch_size, -(-width // layer.stride), out)
        row_step, stride = self.rows.stride(1), layer.stride
        self.windows = self.rows.as_strided(
            (batch_size, self.out_shape[1], rows, columns * channels),
            (self.rows.stride(0), stride * channels, row_step, 1),
        )

    def push(self, row: Tensor) -> None:
        """Take the next input row ``(B, W, in)``."""
        if self.rows.shape[1] > 1:
            self.rows[:, :-1] = self.rows[:, 1:]
        self.newest.copy_(row)

    def output(self) -> Tensor:
        """The output row ``(B, ⌈W / stride⌉, out)`` that ends with the newest input row."""
        taps = self.windows.reshape(-1, len(self.matrix))
        return torch.addmm(self.bias, taps, self.matrix).view(self.out_shape)


class RowUpsample:
    """A transposed down-shifted convolution, a row at a time."""

    def __init__(self, layer: DownShiftedUpsample, batch_size: int, width: int) -> None:
        weight = layer.weight.permute(2, 3, 1, 0)  # (2 rows, 3 columns, in, out)
        zero = torch.zeros_like(weight[:, 0])
        # Of a low site and the one to its right, to the even and the odd column.
        here = torch.cat([weight[:, 1], weight[:, 2]], -1)
        right = torch.cat([zero, weight[:, 0]], -1)
        self.matrices = torch.cat([here, right], 1)
        self.bias = layer.bias.repeat(2)
        self.width = width
        self.low = weight.new_zeros(batch_size, -(-width // 2) + 1, weight.shape[2])

    def push(self, low: Tensor) -> None:
        """Take the next low row ``(B, ⌈W / 2⌉, in)``."""
        self.low[:, :-1] = low

    def output(self, parity: int) -> Tensor:
        """The upper (0) or lower (1) of the two rows ``(B, W, out)`` that the newest low row becomes."""
        pairs = torch.cat([self.low[:, :-1], self.low[:, 1:]], -1)
        wide = torch.addmm(self.bias, pairs.flatten(0, 1), self.matrices[parity])
        return wide.view(len(self.low), -1, self.low.shape[2])[:, : self.width]


class SiteConv:
    """A down-right-shifted convolution, a site at a time.

    Attributes:
        inputs: Where a site's input ``(B, in)`` is to be written, by column.
        outputs: Where a site's output ``(B, out)`` appears, by output column.
    """

    def __init__(self, layer: WeightNormConv2d, batch_size: int, width: int) -> None:
        weight = layer.weight
        out, channels, rows, columns = weight.shape
        assert rows == 2
        self.above, self.here = weight.permute(2, 3, 1, 0).reshape(2, -1, out).contiguous()
        self.bias = layer.bias
        row = weight.new_zeros(batch_size, width + columns - 1, channels)
        sums = weight.new_empty(batch_size, -(-width // layer.stride), out)
        self.inputs = row[:, columns - 1 :].unbind(1)
        self.outputs = sums.unbind(1)
        self.sums = sums
        self.all_windows = row.as_strided(
            (batch_size, sums.shape[1], columns * channels),
            (row.stride(0), layer.stride * channels, 1),
        )
        self.windows = self.all_windows.unbind(1)

    def start_row(self, beside: Tensor | None = None) -> None:
        """Begin a row: sum what comes from the row above, the bias, and ``beside`` ``(B, W or 1, out)``."""
        taps = self.all_windows.reshape(-1, len(self.above))
        from_above = torch.addmm(self.bias, taps, self.above).view(self.sums.shape)
        if beside is None:
            self.sums.copy_(from_above)
        else:
            torch.add(from_above, beside, out=self.sums)

    def step(self, column: int) -> None:
        """Complete the output at a column, now that the inputs up to it are written."""
        self.outputs[column].addmm_(self.windows[column], self.here)


class SiteUpsample:
    """A transposed down-right-shifted convolution: a low site becomes two sites now and two a row later.

    Attributes:
        low: Where a low site's input ``(B, in)`` is to be written, by low column.
        outputs: Where a site's output ``(B, 1, out)`` appears, by column.
    """

    def __init__(self, layer: DownRightShiftedUpsample, batch_size: int, width: int) -> None:
        weight = layer.weight.permute(2, 1, 3, 0)  # (2 rows, in, 2 columns, out)
        self.now, self.later = weight.flatten(2).contiguous()
        self.bias = layer.bias.repeat(2)
        self.row = weight.new_zeros(batch_size, -(-width // 2), weight.shape[1])
        wide = weight.new_empty(batch_size, self.row.shape[1], self.now.shape[1])
        self.low = self.row.unbind(1)
        self.pairs = wide.unbind(1)
        self.wide = wide
        self.outputs = wide.view(batch_size, -1, 1, weight.shape[3]).unbind(1)

    def start_odd_row(self) -> None:
        """Compute the whole lower row, whose low row is complete."""
        flat = torch.addmm(self.bias, self.row.flatten(0, 1), self.later)
        self.wide.copy_(flat.view(self.wide.shape))

    def step(self, column: int) -> None:
        """Compute the two sites of the upper row that the low site at a low column becomes."""
        torch.addmm(self.bias, self.low[column], self.now, out=self.pairs[column])


class SiteState:
    """The down-right stream's value at the current site of one resolution, side by side with its negative.

    One buffer for all blocks: a residual is added in place, and ELU of it is what a convolution reads.
    """

    def __init__(self, batch_size: int, like: Tensor) -> None:
        self.signs = like.new_tensor([[1.0], [-1.0]])
        self.pair = like.new_zeros(batch_size, 2, len(like))
        self.flat = self.pair.view(batch_size, -1)
        self.value = self.pair[:, 0]

    def set(self, value: Tensor) -> None:
        """Take a value ``(B, 1, D)``."""
        torch.mul(value, self.signs, out=self.pair)

    def add(self, value: Tensor) -> None:
        """Add a value ``(B, D)``."""
        self.pair.addcmul_(value[:, None], self.signs)

    def write_elu(self, out: Tensor) -> None:
        """Concat-ELU of the value into ``(B, 2D)``."""
        torch.ops.aten.elu.out(self.flat, 1, 1, 1, out=out)


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
        self.hidden_pairs = [place.view(batch_size, 2, -1) for place in self.right_out.inputs]

    def start_row(self, x: Tensor, elu: Tensor, skip: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the downward block on a row: value ``(B, W, D)`` and concat-ELU in, the same out."""
        self.down_in.push(elu)
        hidden = self.down_in.output()
        if skip is not None:
            hidden += skip @ self.down_skip
        self.down_out.push(concat_elu_row(hidden))
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
            self.shrink_down = RowConv(level.shrink.down, batch_size, level.width)
            self.shrink_right = SiteConv(level.shrink.right, batch_size, level.width)
            self.shrunk = [output[:, None] for output in self.shrink_right.outputs]
            self.grow_down = RowUpsample(level.grow.down, batch_size, level.width)
            self.grow_right = SiteUpsample(level.grow.right, batch_size, level.width)
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
            self.shrink_down.push(x)
            if row % 2 == 0:
                self.shrink_right.start_row()
                self.grow_down.push(self.lower.start_row(row // 2, self.shrink_down.output()))
            else:
                self.grow_right.start_odd_row()
            x = self.grow_down.output(row % 2)
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
            self.shrink_right.inputs[column].copy_(state.value)
            if self.row % 2 == 0 and column % 2 == 0:
                self._step_lower(self.lower, column // 2)
            state.set(self.grow_right.outputs[column])
        for block, skip in zip(self.ascending, self.skips, strict=True):
            block.step(column, skip[column])

    def _step_lower(self, lower: LevelStream, column: int) -> None:
        self.shrink_right.step(column)
        lower.state.set(self.shrunk[column])
        lower.step(column)
        self.grow_right.low[column].copy_(lower.state.value)
        self.grow_right.step(column)


class PixelCNNPPDecoder(Decoder):
    """Walks a PixelCNN++: the network once a site, the likelihood once a channel.

    Args:
        model: Whose distribution it walks.
        batch_size: Grids at once.
        condition: What the model is told, or None.
    """

    @torch.no_grad()
    def __init__(self, model: PixelCNNPP, batch_size: int, condition: Condition | None) -> None:
        super().__init__(model.grid, batch_size)
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
        self.places = [[place[:, start:end] for start, end in spans] for place in self.first_left.inputs]
        self.rows_a_period = 2 ** (model.config.resolutions - 1)  # of which the coarsest resolution has one
        self.walk: MixtureWalk | None = None
        self.next_logits: Tensor | None = None

    def for_replay(self) -> list[Stretch]:
        row_size = self.grid.width * self.grid.channels
        periods, rest = divmod(self.grid.height, self.rows_a_period)
        return [Stretch(self.rows_a_period * row_size, periods), *[Stretch(row_size, 1)] * rest]

    @torch.no_grad()
    def _logits(self) -> Tensor:
        if self.next_logits is None:
            if self.walk is None:
                row, column, _ = self.grid.site(self.index)
                self.walk = MixtureWalk(self.mixture, self._run_network(row, column))
            self.next_logits = self.walk.logits()
        return self.next_logits

    @torch.no_grad()
    def _push(self, symbols: Tensor) -> None:
        self._logits()  # the site must be in the caches, also where nobody asked for its logits
        _, column, channel = self.grid.site(self.index)
        self.places[column + 1][channel].copy_(self.tables[channel][symbols])
        assert self.walk is not None
        if channel + 1 < self.grid.channels:
            self.walk.push(self.mixture.values(symbols, self.walk.log_weights.dtype))
        else:
            self.walk = None
        self.next_logits = None

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
        self.first_down.push(pixels)
        self.first_above.push(pixels)
        self.first_left.start_row(F.pad(self.first_above.output(), (0, 0, 0, 1)))
        self.level.start_row(row, self.first_down.output())


def _pointwise(layer: WeightNormConv2d) -> Tensor:
    """The matrix ``(in, out)`` of a 1×1 convolution."""
    return layer.weight[:, :, 0, 0].t().contiguous()


def _label(block: GatedBlock, class_index: Tensor) -> Tensor | None:
    """What the condition adds to a block's gates, ``(B, 1, 2D)``."""
    return None if block.label is None else block.label(class_index)[:, None]
