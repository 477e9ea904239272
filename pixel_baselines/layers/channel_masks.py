"""Channel groups: which features of a site may see which of its symbols (R, then G, then B)."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MaskType = Literal["A", "B"]


def channel_groups(features: int, channels: int) -> list[slice]:
    """The features that belong to each symbol of a site, as consecutive slices.

    The groups are as even as they can be: the paper's 128 features of an RGB site are 43 + 43 + 42.

    Example:
        >>> [group.stop - group.start for group in channel_groups(128, 3)]
        [43, 43, 42]
    """
    starts = [-(-channel * features // channels) for channel in range(channels + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(starts)]


def channel_mask(inputs: int, outputs: int, channels: int, mask_type: MaskType) -> Tensor:
    """Which input features of a site an output feature of the same site may see.

    Args:
        inputs: Input features.
        outputs: Output features.
        channels: Symbols a site.
        mask_type: "A" for the network's input, where a symbol must not see itself; "B" for all layers
            above, where a group has already been kept from it.

    Returns:
        Float mask ``(outputs, inputs)`` of ones and zeros.

    Example:
        >>> channel_mask(3, 3, 3, "A").int().tolist()
        [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    """
    mask = torch.zeros(outputs, inputs)
    columns = channel_groups(inputs, channels)
    for rows, column in zip(channel_groups(outputs, channels), columns, strict=True):
        mask[rows, : column.start if mask_type == "A" else column.stop] = 1
    return mask


class MaskedLinear(nn.Linear):
    """A 1×1 convolution of mask type B on channels-last features ``(..., inputs)``.

    Example:
        >>> import torch
        >>> MaskedLinear(6, 12, channels=3)(torch.zeros(2, 4, 6)).shape
        torch.Size([2, 4, 12])
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, *, channels: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.register_buffer("mask", channel_mask(inputs, outputs, channels, "B"), persistent=False)

    @property
    def masked_weight(self) -> Tensor:
        """``(outputs, inputs)``, zero where the mask is."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.masked_weight, self.bias)
