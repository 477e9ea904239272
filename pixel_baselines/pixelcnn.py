"""PixelCNN: residual blocks of masked convolutions, blind spot included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixel_baselines.masked_conv import (
    SoftmaxHead,
    SymbolEmbedding,
    as_feature_map,
    masked_conv,
    pointwise_conv,
)
from pixel_baselines.masked_input import MaskedInputConfig
from pixel_baselines.pixelcnn_decoder import PixelCNNDecoder
from pixel_baselines.pixelcnn_wavefront import PixelCNNWavefront
from rasterwise.autoregressive import AutoregressiveModel, Decoder
from rasterwise.condition import Condition
from rasterwise.errors import InputError
from rasterwise.wavefront import WavefrontDecoder


@dataclass(frozen=True, kw_only=True)
class MaskedConvConfig(MaskedInputConfig):
    """What PixelCNN and Gated PixelCNN are both told.

    Attributes:
        kernel: Side of the layers' convolutions, odd.
    """

    kernel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_kernel("kernel")


@dataclass(frozen=True, kw_only=True)
class PixelCNNConfig(MaskedConvConfig):
    """A PixelCNN. The paper's CIFAR-10 model has 15 blocks, width 256 (2h with h = 128), output_width 1024.

    Attributes:
        width: Features of the residual map (the paper's 2h, even); the 3×3 convolutions have half as many.
        blocks: Residual blocks.
    """

    blocks: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks < 1:
            raise InputError(f"blocks is {self.blocks}, expected at least 1")
        self.check_halves()


class ResidualBlock(nn.Module):
    """ReLU before each of 1×1 (2h to h), k×k of mask B (h to h) and 1×1 (h to 2h), around a shortcut."""

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        width, half, channels = config.width, config.width // 2, config.grid.channels
        self.down = pointwise_conv(width, half, channels)
        self.conv = masked_conv(half, half, config.kernel, "B", channels)
        # No bias: added to the residual stream it is the same as one in the layers that read the stream.
        self.up = pointwise_conv(half, width, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Float ``(B, 2h, H, W)`` to the same."""
        hidden = F.relu(self.down(F.relu(x)), inplace=True)
        hidden = F.relu(self.conv(hidden), inplace=True)
        return self.up(hidden).add_(x)


class PixelCNN(AutoregressiveModel):
    """Masked convolutions all the way: fast to train, with a blind spot.

    A 7×7 convolution of mask A, residual blocks around 3×3 convolutions of mask B, two 1×1 layers and a
    softmax. At a site, features of R, G and B form three groups, each of which sees the groups before it.

    The blind spot: a masked kernel reaches no further right than half its width in a row that it climbs, so a
    stack of them misses a wedge of the earlier symbols. With p = ``input_kernel // 2``, q = ``kernel // 2``
    and n = ``blocks``, a site sees p + q·n rows up and p + q·n columns to its left, but to its right, in the
    row that is r >= 1 above it, only p + q·min(r - 1, n) columns. However deep the model, the row just above
    stays hidden beyond p columns to the right. (For p >= q; a smaller first kernel blurs the edge in RGB.)
    Gated PixelCNN is the model without a blind spot. What a site does not see need not be drawn before it:
    ``sample`` draws a row while the one above it is still unfinished, see ``PixelCNNWavefront``.

    Not in the paper: a class is told as a bias of the first convolution, which the residual stream carries.

    Args:
        config: Its architecture and its data.

    References:
        van den Oord et al., Pixel Recurrent Neural Networks, 2016 (arXiv 1601.06759), section 3.4, table 1.
        The blind spot: van den Oord et al., 2016 (arXiv 1606.05328), figure 1.

    Example:
        >>> from rasterwise.grid import Grid
        >>> config = PixelCNNConfig(grid=Grid(3, 4, 4, 256), classes=("cat", "dog"), width=12, blocks=2)
        >>> model = PixelCNN(config).eval()
        >>> symbols = model.sample(2, Condition(torch.tensor([0, 1])))
        >>> symbols.shape, model.log_prob(symbols).shape
        (torch.Size([2, 3, 4, 4]), torch.Size([2]))
    """

    kind = "pixelcnn"
    config_class = PixelCNNConfig
    config: PixelCNNConfig

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

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return PixelCNNDecoder(self, batch_size, condition)

    def wavefront_decoder(self, batch_size: int, condition: Condition | None = None) -> WavefrontDecoder:
        return PixelCNNWavefront(self, batch_size, condition)
