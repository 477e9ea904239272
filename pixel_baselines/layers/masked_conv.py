"""Masked convolutions without the taps that their mask would remove."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixel_baselines.layers.channel_masks import MaskType, channel_mask


class CausalConv2d(nn.Module):
    """A convolution over a window that lies before a site in raster order, or ends at it.

    A masked k×k kernel spends half of its arithmetic on zeros. This one has no taps that the mask hides
    from every feature. What is left of the mask (channel groups at the site itself, taps right of it in its own
    row) is a buffer that multiplies the weight.

    Args:
        inputs: Input features.
        outputs: Output features.
        above: Rows of the window above the site.
        left: Columns of the window left of the site.
        right: Columns of the window right of the site; -1 for a window that ends left of it.
        own_row: Whether the window's last row is the site's own, or the one above it.
        mask: ``(outputs, inputs, rows, columns)`` of ones and zeros, or None where all taps count.
        bias: Whether to add one.

    Example:
        >>> import torch
        >>> conv = CausalConv2d(3, 8, above=1, left=1, right=1)
        >>> conv(torch.zeros(2, 3, 5, 4)).shape, tuple(conv.weight.shape)
        (torch.Size([2, 8, 5, 4]), (8, 3, 2, 3))
    """

    mask: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        above: int = 0,
        left: int = 0,
        right: int = 0,
        own_row: bool = True,
        mask: Tensor | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.above, self.left = above, left
        self.padding = (left, right, above, 0 if own_row else -1)
        shape = (outputs, inputs, above + own_row, left + right + 1)
        taps: float = math.prod(shape[1:])
        if mask is not None and not mask.is_meta:  # where there are no values, none are drawn either
            taps = max(1.0, mask.flatten(1).sum(1).mean().item())
        bound = taps**-0.5  # as torch's own convolutions start, but counting the taps that are there
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if bias else None
        self.register_buffer("mask", mask, persistent=False)

    @property
    def masked_weight(self) -> Tensor:
        """``(outputs, inputs, rows, columns)``, zero where the mask is."""
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """Float ``(B, inputs, H, W)`` to ``(B, outputs, H, W)``; beyond the edges lie zeros."""
        if any(self.padding):
            x = F.pad(x, self.padding)
        return F.conv2d(x, self.masked_weight, self.bias)

    @property
    def offset(self) -> Tensor:
        """The bias ``(outputs,)``, zeros where there is none."""
        return self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias

    def row_matrix(self, rows: int) -> Tensor:
        """The taps of the window's first rows as a matrix ``(rows · columns · inputs, outputs)``."""
        return self.masked_weight[:, :, :rows].permute(2, 3, 1, 0).flatten(0, 2)

    def site_matrix(self) -> Tensor:
        """The taps in the site's row, up to the site, as a matrix ``(columns · inputs, outputs)``."""
        return self.masked_weight[:, :, -1, : self.left + 1].permute(2, 1, 0).flatten(0, 1)


def masked_conv(inputs: int, outputs: int, kernel: int, mask_type: MaskType, channels: int) -> CausalConv2d:
    """The k×k convolution of mask type A or B, as its upper ⌈k/2⌉ rows."""
    reach = kernel // 2
    mask = torch.ones(outputs, inputs, reach + 1, kernel)
    mask[:, :, -1, reach + 1 :] = 0
    mask[:, :, -1, reach] = channel_mask(inputs, outputs, channels, mask_type)
    return CausalConv2d(inputs, outputs, above=reach, left=reach, right=reach, mask=mask)


def vertical_conv(inputs: int, outputs: int, kernel: int, mask_type: MaskType) -> CausalConv2d:
    """The vertical stack's convolution: rows above the site's for type A, and its own row too for type B.

    Type A reads symbols; type B reads features that have seen nothing but rows above their own already, so
    that neither needs a mask.
    """
    reach = kernel // 2
    return CausalConv2d(inputs, outputs, above=reach, left=reach, right=reach, own_row=mask_type == "B")


def horizontal_conv(
    inputs: int, outputs: int, kernel: int, mask_type: MaskType, channels: int, gates: int = 1
) -> CausalConv2d:
    """The horizontal stack's 1×⌈k/2⌉ convolution, up to the site; ``gates`` sets of grouped outputs."""
    reach = kernel // 2
    if channels == 1:
        return CausalConv2d(inputs, outputs, left=reach, right=-1 if mask_type == "A" else 0)
    mask = torch.ones(outputs, inputs, 1, reach + 1)
    mask[:, :, 0, reach] = channel_mask(inputs, outputs // gates, channels, mask_type).repeat(gates, 1)
    return CausalConv2d(inputs, outputs, left=reach, mask=mask)


def pointwise_conv(inputs: int, outputs: int, channels: int, *, bias: bool = True) -> CausalConv2d:
    """The 1×1 convolution of mask type B."""
    mask = channel_mask(inputs, outputs, channels, "B")[:, :, None, None] if channels > 1 else None
    return CausalConv2d(inputs, outputs, mask=mask, bias=bias)
