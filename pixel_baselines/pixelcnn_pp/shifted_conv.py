"""Convolutions that see no later site because they are shifted, with weight normalisation started from data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_VARIANCE = 1e-6
"""Of a channel over the first batch; below it, it counts as constant."""


class WeightNormConv2d(nn.Module):
    """A convolution whose kernel is a direction times a gain, for each output channel.

    Fresh, the gains are 1 and the biases 0. ``data_dependent_start`` sets both so that the outputs on the
    first training batch have mean 0 and standard deviation ``start_scale``; a channel that is constant on that
    batch gets mean 0 alone.

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        kernel: Rows and columns of the kernel.
        stride: Rows and columns between outputs.
        start_scale: Standard deviation of the outputs after the start.

    References:
        Salimans and Kingma, Weight Normalization, 2016 (arXiv 1602.07868).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        start_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.start_scale = start_scale
        self.direction = nn.Parameter(0.05 * torch.randn(out_channels, in_channels, *kernel))
        self.gain = nn.Parameter(torch.ones(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    @property
    def weight(self) -> Tensor:
        """The kernel ``(out, in, rows, columns)``."""
        norm = torch.linalg.vector_norm(self.direction, dim=(1, 2, 3), keepdim=True)
        return self.direction * (self.gain[:, None, None, None] / norm)


class DownShiftedConv2d(WeightNormConv2d):
    """Sees its own row and those above, as far to the right as to the left.

    Output row i reads the input rows up to ``stride · i``; sizes that the stride does not divide round up.

    Example:
        >>> import torch
        >>> DownShiftedConv2d(3, 8, (2, 3), stride=2)(torch.zeros(1, 3, 5, 4)).shape
        torch.Size([1, 8, 3, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, H, W)`` to ``(B, out, ⌈H / stride⌉, ⌈W / stride⌉)``."""
        rows, columns = self.kernel
        side = columns // 2
        return F.conv2d(F.pad(x, (side, side, rows - 1, 0)), self.weight, self.bias, self.stride)


class DownRightShiftedConv2d(WeightNormConv2d):
    """Sees its own site and those above and to the left of it.

    Example:
        >>> import torch
        >>> DownRightShiftedConv2d(3, 8, (2, 2), stride=2)(torch.zeros(1, 3, 5, 4)).shape
        torch.Size([1, 8, 3, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, H, W)`` to ``(B, out, ⌈H / stride⌉, ⌈W / stride⌉)``."""
        rows, columns = self.kernel
        return F.conv2d(F.pad(x, (columns - 1, 0, rows - 1, 0)), self.weight, self.bias, self.stride)


class DownShiftedUpsample(WeightNormConv2d):
    """Transposed down-shifted convolution of kernel 2×3 and stride 2: row y reads the low row ⌊y / 2⌋.

    Low row i was made of rows up to 2i, so that what row y reads is no later than y itself. Column 2j reads
    the low column j, column 2j + 1 those on both sides of it.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (2, 3), stride=2)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """``(B, in, ⌈height / 2⌉, ⌈width / 2⌉)`` to ``(B, out, height, width)``."""
        wide = F.conv_transpose2d(x, self.weight.transpose(0, 1), self.bias, 2)
        return wide[..., :height, 1 : 1 + width]


class DownRightShiftedUpsample(WeightNormConv2d):
    """Transposed down-right-shifted convolution of kernel 2×2 and stride 2: a low site becomes four.

    Low site (i, j) was made of sites up to (2i, 2j), so that none of the four reads a site after itself.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (2, 2), stride=2)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """``(B, in, ⌈height / 2⌉, ⌈width / 2⌉)`` to ``(B, out, height, width)``."""
        wide = F.conv_transpose2d(x, self.weight.transpose(0, 1), self.bias, 2)
        return wide[..., :height, :width]


@contextlib.contextmanager
def data_dependent_start(network: nn.Module) -> Iterator[None]:
    """Inside the block, a pass through ``network`` sets every gain and bias from what passes through.

    Nowhere else does a forward pass write weights: this is how the paper starts, once, from the first training
    batch. Processes that train together take the moments of their batches together, so that they start from the
    same weights.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, WeightNormConv2d)]
    hooks = [layer.register_forward_hook(_start) for layer in layers]
    try:
        with torch.no_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _start(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
    assert isinstance(layer, WeightNormConv2d)
    sample = output.double()
    moments = torch.stack([sample.mean((0, 2, 3)), sample.square().mean((0, 2, 3))])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(moments)
        moments /= torch.distributed.get_world_size()
    mean = moments[0]
    variance = moments[1] - mean.square()
    # A channel that is constant on this batch, as all are that see nothing of a small grid, keeps its gain:
    # dividing by its deviation would let later batches explode, by a factor a layer.
    factor = torch.where(variance < LEAST_VARIANCE, 1.0, layer.start_scale / variance.sqrt())
    layer.gain.mul_(factor)
    layer.bias.copy_((layer.bias - mean) * factor)
    return ((sample - mean[:, None, None]) * factor[:, None, None]).to(output.dtype)
