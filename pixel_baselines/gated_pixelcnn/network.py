"""Gated PixelCNN's configuration, layers and teacher-forced logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from pixel_baselines.layers.channel_masks import MaskType
from pixel_baselines.layers.config import MaskedConvConfig
from pixel_baselines.layers.masked_conv import horizontal_conv, pointwise_conv, vertical_conv
from pixel_baselines.layers.symbols import SoftmaxHead, SymbolEmbedding, as_feature_map
from rasterwise.configuration import Depth, WidthOrZero, configuration
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition


@configuration(kw_only=True)
class GatedPixelCNNConfig(MaskedConvConfig):
    """A Gated PixelCNN.

    Attributes:
        width: Features of each stack (the paper's p); a gate reads twice as many.
        depth: Gated layers, the first one with ``input_kernel``.
        spatial_features: Features D of the spatial condition; 0 for a model that takes none.
    """

    depth: Depth = 8
    spatial_features: WidthOrZero = 0


def gate(sums: Tensor) -> Tensor:
    """The gated activation unit tanh(a) · σ(b) of the sums ``(B, 2p, H, W)``: ``(B, p, H, W)``."""
    a, b = sums.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks.

    Args:
        config: Of the model.
        first: Whether it reads symbols (mask A, no shortcut) or a layer's features (mask B, shortcut).
        last: Whether no layer follows, so that the vertical stack ends in its sums.
    """

    def __init__(self, config: GatedPixelCNNConfig, inputs: int, *, first: bool, last: bool) -> None:
        super().__init__()
        width, channels = config.width, config.grid.channels
        kernel = config.input_kernel if first else config.kernel
        mask_type: MaskType = "A" if first else "B"
        self.first, self.last = first, last
        self.vertical = vertical_conv(inputs, 2 * width, kernel, mask_type)
        self.horizontal = horizontal_conv(inputs, 2 * width, kernel, mask_type, channels, gates=2)
        # The vertical features have seen whole rows above alone: every group may see all of them.
        self.link = nn.Conv2d(2 * width, 2 * width, 1, bias=False)
        # No bias: the convolutions that read the stream have their own.
        self.output = pointwise_conv(width, width, channels, bias=False)
        self.spatial = (
            nn.Conv2d(config.spatial_features, 4 * width, 1, bias=False) if config.spatial_features else None
        )

    def forward(
        self, vertical: Tensor, horizontal: Tensor, label_bias: Tensor | None, spatial: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One layer up.

        Args:
            vertical: ``(B, p, H, W)``; a site's features have seen the rows above it.
            horizontal: ``(B, p, H, W)``; a site's features have seen every earlier symbol within reach.
            label_bias: ``(B, 2, 2p)`` for the vertical and the horizontal sums, or None.
            spatial: The spatial condition ``(B, D, H, W)``, or None.

        Returns:
            The two stacks' next features; the vertical ones of the last layer are sums that nobody reads.
        """
        # Sums are added up in place: a convolution's output is not needed by its backward pass.
        above, across = self.vertical(vertical), self.horizontal(horizontal)
        if label_bias is not None:
            above_bias, across_bias = label_bias.to(above.dtype)[..., None, None].unbind(1)
            above.add_(above_bias)
            across.add_(across_bias)
        if spatial is not None and self.spatial is not None:
            above_map, across_map = self.spatial(spatial).chunk(2, 1)
            above.add_(above_map)
            across.add_(across_map)
        across.add_(self.link(above))
        output = self.output(gate(across))
        if not self.first:
            output.add_(horizontal)
        return above if self.last else gate(above), output


class GatedPixelCNNNetwork(AutoregressiveModel):
    """The part of ``GatedPixelCNN`` that its decoder reads: layers and teacher-forced logits.

    Args:
        config: Its architecture and its data.
    """

    config_class = GatedPixelCNNConfig
    config: GatedPixelCNNConfig
    any_size: ClassVar[bool] = True
    takes_spatial: ClassVar[bool] = True

    def __init__(self, config: GatedPixelCNNConfig) -> None:
        super().__init__(config)
        self.embedding = SymbolEmbedding(config.grid, config.embedding, config.embedding_width)
        layers = nn.ModuleList(
            [
                GatedLayer(
                    config,
                    config.width if index else self.embedding.features,
                    first=index == 0,
                    last=index == config.depth - 1,
                )
                for index in range(config.depth)
            ]
        )
        self.layers = cast("Sequence[GatedLayer]", layers)
        self.head = SoftmaxHead(config.width, config.output_width, config.grid)
        self.label_bias = (
            nn.Embedding(len(config.classes) + 1, config.depth * 4 * config.width) if config.classes else None
        )
        if self.label_bias is not None:
            nn.init.zeros_(self.label_bias.weight)

    def embed(self, symbols: Tensor) -> Tensor:
        """int64 ``(B, C, H, W)`` to float ``(B, C, H, W)`` in [-1, 1], or to learned vectors, one axis more."""
        return self.embedding(symbols, self.head.output.weight.dtype)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        biases = self.gate_biases(condition, len(inputs))
        spatial = self.spatial_map(condition, len(inputs))
        if spatial is not None:
            spatial = spatial.contiguous(memory_format=torch.channels_last)
        vertical = horizontal = as_feature_map(inputs).contiguous(memory_format=torch.channels_last)
        for index, layer in enumerate(self.layers):
            vertical, horizontal = layer(
                vertical, horizontal, None if biases is None else biases[:, index], spatial
            )
        return self.head(horizontal)

    def gate_biases(self, condition: Condition | None, batch_size: int) -> Tensor | None:
        """What the labels add to the sums of every gate: ``(B, depth, 2, 2p)``; None without classes."""
        classes = self.class_index(condition, batch_size)
        if self.label_bias is None:
            return None
        return self.label_bias(classes).view(batch_size, self.config.depth, 2, 2 * self.config.width)

    def spatial_map(self, condition: Condition | None, batch_size: int) -> Tensor | None:
        """The spatial condition ``(B, D, H, W)`` in the model's dtype, or None where there is none.

        Raises:
            InputError: It does not fit the model.
        """
        spatial = None if condition is None else condition.spatial
        if spatial is None:
            return None
        features = self.config.spatial_features
        if not features:
            raise InputError("a spatial condition was given to a model with spatial_features 0; leave it out")
        expected = (batch_size, features, self.grid.height, self.grid.width)
        if tuple(spatial.shape) != expected or not spatial.is_floating_point():
            raise InputError(
                f"the spatial condition is {spatial.dtype} {tuple(spatial.shape)}, expected float {expected}"
            )
        return spatial.to(self.device, self.head.output.weight.dtype)
