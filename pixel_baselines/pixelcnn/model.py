"""PixelCNN: residual blocks of masked convolutions."""

from __future__ import annotations

from pixel_baselines.pixelcnn.decoder import PixelCNNDecoder
from pixel_baselines.pixelcnn.network import PixelCNNNetwork
from pixel_baselines.pixelcnn.wavefront import PixelCNNWavefrontDecoder
from rasterwise.decoding.decoder import Decoder
from rasterwise.symbols.condition import Condition


class PixelCNN(PixelCNNNetwork):
    """Masked convolutions all the way: fast to train, with a blind spot.

    A 7×7 convolution of mask A, residual blocks around 3×3 convolutions of mask B, two 1×1 layers and a
    softmax. At a site, features of R, G and B form three groups, each of which sees the groups before it.

    The blind spot: a masked kernel reaches no further right than half its width in a row that it climbs, so a
    stack of them misses a wedge of the earlier symbols. With p = ``input_kernel // 2``, q = ``kernel // 2``
    and n = ``blocks``, a site sees p + q·n rows up and p + q·n columns to its left, but to its right, in the
    row that is r >= 1 above it, only p + q·min(r - 1, n) columns. However deep the model, the row just above
    stays hidden beyond p columns to the right. (For p >= q; a smaller first kernel blurs the edge in RGB.)
    Gated PixelCNN is the model without a blind spot. What a site does not see need not be drawn before it:
    ``sample`` draws a row before the one above it has ended, see ``PixelCNNWavefrontDecoder``.

    Not in the paper: a class is a bias of the first convolution, which the residual stream carries on.

    Args:
        config: Its architecture and its data.

    References:
        van den Oord et al., Pixel Recurrent Neural Networks, 2016 (arXiv 1601.06759), section 3.4, table 1.
        The blind spot: van den Oord et al., 2016 (arXiv 1606.05328), figure 1.

    Example:
        >>> import torch
        >>> from rasterwise import Condition, Grid, PixelCNN, PixelCNNConfig
        >>> config = PixelCNNConfig(grid=Grid(3, 4, 4, 256), classes=("cat", "dog"), width=12, blocks=2)
        >>> model = PixelCNN(config).eval()
        >>> symbols = model.sample(2, Condition(torch.tensor([0, 1])))
        >>> symbols.shape, model.log_prob(symbols).shape
        (torch.Size([2, 3, 4, 4]), torch.Size([2]))
    """

    kind = "pixelcnn"

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return PixelCNNDecoder(self, batch_size, condition)

    def wavefront_decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return PixelCNNWavefrontDecoder(self, batch_size, condition)
