"""Cached convolutions of PixelCNN++: by rows, or by sites."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.pixelcnn_pp.shifted_conv import (
    DownRightShiftedUpsample,
    DownShiftedUpsample,
    WeightNormConv2d,
)


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

    def append(self, row: Tensor) -> None:
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

    def append(self, low: Tensor) -> None:
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

    def start_row(self, added: Tensor | None = None) -> None:
        """Begin a row: sum what comes from the row above, the bias, and ``added`` ``(B, W or 1, out)``."""
        taps = self.all_windows.reshape(-1, len(self.above))
        from_above = torch.addmm(self.bias, taps, self.above).view(self.sums.shape)
        if added is None:
            self.sums.copy_(from_above)
        else:
            torch.add(from_above, added, out=self.sums)

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

    All blocks share the buffer: residuals are added in place, and convolutions read ELU of it.
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


def _pointwise(layer: WeightNormConv2d) -> Tensor:
    """The matrix ``(in, out)`` of a 1×1 convolution."""
    return layer.weight[:, :, 0, 0].t().contiguous()
