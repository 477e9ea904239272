"""Cached decoding of the two 1×1 layers at the end of a pixel-level model."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pixel_baselines.layers.channel_masks import channel_groups
from pixel_baselines.layers.symbols import Layer


class HeadStep(NamedTuple):
    """The views and weights of one channel group's step through both layers."""

    stream: Tensor
    active: Tensor
    bias: Tensor
    seen: Tensor
    matrix: Tensor
    hidden: Tensor
    output_bias: Tensor
    hidden_seen: Tensor
    output_matrix: Tensor


class HeadDecoder:
    """ReLU and 1×1 layer, twice, for one channel group of a site after the other.

    Args:
        first: The hidden layer.
        second: The layer whose outputs are logits ``(C · K)``.
        stream: ``(B, inputs)``: where the caller leaves the last features of the site, group by group.
        channels: Symbols a site.
    """

    def __init__(self, first: Layer, second: Layer, stream: Tensor, channels: int) -> None:
        active = torch.zeros_like(stream)
        hidden = stream.new_zeros(len(stream), len(first.weight))
        features = (stream.shape[1], len(first.weight), len(second.weight))
        groups = [channel_groups(count, channels) for count in features]
        self.steps = [
            HeadStep(
                stream[:, group],
                active[:, group],
                first.bias[own],
                active[:, : group.stop],
                first.weight[own, : group.stop].t().contiguous(),
                hidden[:, own],
                second.bias[levels],
                hidden[:, : own.stop],
                second.weight[levels, : own.stop].t().contiguous(),
            )
            for group, own, levels in zip(*groups, strict=True)
        ]

    def logits(self, channel: int, rows: int | None = None) -> Tensor:
        """Logits ``(B, K)`` of a channel, a new tensor; of the first ``rows`` of the batch alone where given."""
        stream, active, bias, seen, matrix, hidden, output_bias, hidden_seen, output = self.steps[channel]
        if rows is not None:
            stream, active, seen = stream[:rows], active[:rows], seen[:rows]
            hidden, hidden_seen = hidden[:rows], hidden_seen[:rows]
        torch.clamp_min(stream, 0, out=active)
        torch.addmm(bias, seen, matrix, out=hidden)
        hidden.relu_()
        return torch.addmm(output_bias, hidden_seen, output)
