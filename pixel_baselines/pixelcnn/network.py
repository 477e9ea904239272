"""PixelCNN's configuration, layers and teacher-forced logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixel_baselines.layers.config import MaskedConvConfig
from pixel_baselines.layers.masked_conv import masked_conv, pointwise_conv
from pixel_baselines.layers.symbols import SoftmaxHead, SymbolEmbedding, as_feature_map
from rasterwise.configuration import Depth, configuration
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition


@configuration(kw_only=True)
class PixelCNNConfig(MaskedConvConfig):
    """A PixelCNN. The paper's CIFAR-10 model has 15 blocks, width 256 (2h with h = 128), output_width 1024.

    Attributes:
        width: Features of the residual map (the paper's 2h, even); the 3×3 convolutions have half as many.
        blocks: Residual blocks.
    """

    blocks: Depth = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_halves()


class ResidualBlock(nn.Module):
    """ReLU before each of 1×1 (2h to h), k×k of mask B (h to h) and 1×1 (h to 2h), around a shortcut."""

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        width, half, channels = config.width, config.width // 2, config.grid.channels
        self.down = pointwise_conv(width, half, channels)
        self.conv = masked_conv(half, half, config.kernel, "B", channels)
        # No bias: the stream has the first convolution's already.
        self.up = pointwise_conv(half, width, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Float ``(B, 2h, H, W)`` to the same."""
        hidden = F.relu(self.down(F.relu(x)), inplace=True)
        hidden = F.relu(self.conv(hidden), inplace=True)
        return self.up(hidden).add_(x)


class PixelCNNNetwork(AutoregressiveModel):
    """The part of ``PixelCNN`` that its decoders read: layers and teacher-forced logits.

    Args:
        config: Its architecture and its data.
    """

    config_class = PixelCNNConfig
    config: PixelCNNConfig
    any_size: ClassVar[bool] = True

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__(config)
        grid, width = config.grid, config.width
        self.embedding = SymbolEmbedding(grid, config.embedding, config.embedding_width)
        self.input = masked_conv(self.embedding.features, width, config.input_kernel, "A", grid.channels)
        blocks = nn.ModuleList([ResidualBlock(config) for _ in range(config.blocks)])
        self.blocks = cast("Sequence[ResidualBlock]", blocks)
        self.head = SoftmaxHead(width, config.output_width, grid)
        self.label_bias = nn.Embedding(len(config.classes) + 1, width) if config.classes else None
        if self.label_bias is not None:
            nn.init.zeros_(self.label_bias.weight)

    def embed(self, symbols: Tensor) -> Tensor:
        """int64 ``(B, C, H, W)`` to float ``(B, C, H, W)`` in [-1, 1], or to learned vectors, one axis more."""
        return self.embedding(symbols, self.input.weight.dtype)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        classes = self.class_index(condition, len(inputs))
        x = self.input(as_feature_map(inputs)).contiguous(memory_format=torch.channels_last)
        if self.label_bias is not None:
            x = x + self.label_bias(classes)[:, :, None, None].to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.head(x)
