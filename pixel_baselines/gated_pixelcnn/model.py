"""Gated PixelCNN."""

from __future__ import annotations

from pixel_baselines.gated_pixelcnn.decoder import GatedPixelCNNDecoder
from pixel_baselines.gated_pixelcnn.network import GatedPixelCNNNetwork
from rasterwise.decoding.decoder import Decoder
from rasterwise.symbols.condition import Condition


class GatedPixelCNN(GatedPixelCNNNetwork):
    """Two stacks of gated convolutions: one sees all rows above, the other the row so far and the first.

    Each layer of the vertical stack is a ⌈k/2⌉×k convolution that ends at the site's row (in the first
    layer: at the row above); its sums, before their gate, go through a 1×1 convolution into the sums of the
    horizontal stack's 1×⌈k/2⌉ convolution. Gates are tanh · σ; the horizontal stack has a 1×1 convolution
    and a shortcut around each layer but the first. Two 1×1 layers and a softmax follow. Features of R, G
    and B form three groups in the horizontal stack, each of which sees the groups before it at its site.

    A label is a learned bias of every gate (the paper's Vᵀh for a one-hot h, with one row more for "no
    label"); a spatial condition goes through an unmasked 1×1 convolution into every gate. The paper's figure
    leaves open whether the vertical sums pass on their condition to the horizontal stack; here they do.

    Args:
        config: Its architecture and its data.

    References:
        van den Oord et al., Conditional Image Generation with PixelCNN Decoders, 2016 (arXiv 1606.05328).

    Example:
        >>> import torch
        >>> from rasterwise import Condition, GatedPixelCNN, GatedPixelCNNConfig, Grid
        >>> config = GatedPixelCNNConfig(grid=Grid(1, 4, 4, 2), depth=2, width=8, spatial_features=5)
        >>> model = GatedPixelCNN(config).eval()
        >>> symbols = model.sample(2, Condition(spatial=torch.rand(2, 5, 4, 4)))
        >>> symbols.shape, model.log_prob(symbols).shape
        (torch.Size([2, 1, 4, 4]), torch.Size([2]))
    """

    kind = "gated-pixelcnn"

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return GatedPixelCNNDecoder(self, batch_size, condition)
