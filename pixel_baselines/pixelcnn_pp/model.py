"""PixelCNN++."""

from __future__ import annotations

from pixel_baselines.pixelcnn_pp.decoder import PixelCNNPPDecoder
from pixel_baselines.pixelcnn_pp.network import PixelCNNPPNetwork
from rasterwise.decoding.decoder import Decoder
from rasterwise.symbols.condition import Condition


class PixelCNNPP(PixelCNNPPNetwork):
    """Gated residual streams over several resolutions, and a mixture of logistics over whole pixels.

    A site's network output depends on the whole pixels before it; its channels depend on one another in the
    likelihood alone. Comments in the code name where it departs from the paper.

    The gains and biases start from the first batch seen in training mode (the buffer ``initialised`` says
    whether they have); a model that never saw one is a plain weight-normalised network.

    Args:
        config: Its architecture and its data.

    References:
        Salimans et al., PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and
        Other Modifications, 2017 (arXiv 1701.05517).

    Example:
        >>> import torch
        >>> from rasterwise import Grid, PixelCNNPP, PixelCNNPPConfig
        >>> config = PixelCNNPPConfig(grid=Grid(3, 5, 4, 256), width=8, blocks=1)
        >>> model = PixelCNNPP(config).eval()
        >>> pixels = model.sample(2)
        >>> pixels.shape, model.log_prob(pixels).shape
        (torch.Size([2, 3, 5, 4]), torch.Size([2]))
    """

    kind = "pixelcnn-pp"

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return PixelCNNPPDecoder(self, batch_size, condition)
