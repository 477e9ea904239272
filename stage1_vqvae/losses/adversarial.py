"""The adversarial loss: a discriminator of patches, its loss and that of the decoder, and how it is balanced."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rasterwise.configuration import CountOrZero, Weight, configuration
from rasterwise.errors import InputError

AdversarialKind = Literal["hinge", "logistic"]


@configuration()
class AdversarialConfig:
    """A discriminator, and how it takes part.

    Attributes:
        adversarial_weight: Of the decoder's adversarial loss, on top of the adaptive weight; 0 for no discriminator.
        adversarial_start: The first step with it, 0 the first of all: a decoder that draws blotches is told apart at
            once, and learns nothing from that.
        adversarial_loss: "hinge", or "logistic", which for the decoder is the non-saturating loss.
        discriminator_width: Channels after its first layer.
        discriminator_layers: Its halvings of the resolution: with 3, a score is of a patch of 70×70 pixels.
        highest_adaptive_weight: The adaptive weight is no higher.
    """

    adversarial_weight: Weight = 0.0
    adversarial_start: CountOrZero = 1000
    adversarial_loss: AdversarialKind = "hinge"
    discriminator_width: Annotated[int, Field(multiple_of=8, ge=8, le=2**16)] = 64
    discriminator_layers: Annotated[int, Field(ge=1, le=12)] = 3
    highest_adaptive_weight: Weight = 1e4


class PatchDiscriminator(nn.Module):
    """A score for every patch of an image: high where it looks real.

    Its norms are of groups of an image's channels. The paper's batch norm would make an image's score depend on what
    else is in the batch, and thus on how many processes share it.

    Args:
        channels: Of the images.
        config: Width and layers.

    References:
        Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2016 (arXiv 1611.07004).

    Example:
        >>> import torch
        >>> PatchDiscriminator(3, AdversarialConfig(discriminator_width=8))(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1, 6, 6])
    """

    def __init__(self, channels: int, config: AdversarialConfig) -> None:
        super().__init__()
        self.least = 3 * 2**config.discriminator_layers
        layers: list[nn.Module] = []
        inputs, width = channels, config.discriminator_width
        for level in range(config.discriminator_layers + 1):
            stride = 2 if level < config.discriminator_layers else 1
            layers.append(nn.Conv2d(inputs, width, 4, stride=stride, padding=1))
            if level:
                layers.append(nn.GroupNorm(8, width))
            layers.append(nn.LeakyReLU(0.2))
            inputs, width = width, min(2 * width, 8 * config.discriminator_width)
        layers.append(nn.Conv2d(inputs, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError where images are too small for a score."""
        if min(height, width) < self.least:
            raise InputError(
                f"images are {height}×{width}, but this discriminator needs {self.least}×{self.least}; "
                "give it fewer --discriminator-layers"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Images float ``(B, C, H, W)`` in [-1, 1] to scores ``(B, 1, h, w)``.

        Raises:
            InputError: The images are too small.
        """
        self.check_size(*images.shape[-2:])
        return self.layers(images)


def discriminator_loss(real: Tensor, drawn: Tensor, loss: AdversarialKind) -> Tensor:
    """What the discriminator minimises.

    Args:
        real: Scores of images, float of any shape.
        drawn: Scores of reconstructions, which carry no gradient to the decoder.
        loss: "hinge": real ones above 1 and drawn ones below -1 cost nothing. "logistic": −log of the probability
            that the sigmoid of a score gives to what is so.

    Returns:
        A scalar.

    References:
        Lim and Ye, Geometric GAN, 2017 (arXiv 1705.02894). Goodfellow et al., Generative Adversarial Networks, 2014
        (arXiv 1406.2661).
    """
    if loss == "hinge":
        return (F.relu(1 - real).mean() + F.relu(1 + drawn).mean()) / 2
    return (F.softplus(-real).mean() + F.softplus(drawn).mean()) / 2


def decoder_loss(drawn: Tensor, loss: AdversarialKind) -> Tensor:
    """What the decoder minimises: a scalar that falls as scores of reconstructions rise.

    Of the logistic loss it is the non-saturating one: its gradient is greatest where the discriminator is sure.
    """
    return -drawn.mean() if loss == "hinge" else F.softplus(-drawn).mean()


def adaptive_weight(
    reconstruction_loss: Tensor, adversarial_loss: Tensor, last_weight: nn.Parameter, highest: float
) -> Tensor:
    """The weight at which both losses pull at the decoder's last layer with the same strength.

    Several processes give the weight of the whole batch, the same on all of them.

    Args:
        reconstruction_loss: A scalar with a graph, which is kept.
        adversarial_loss: Another.
        last_weight: The last layer's weight: ``ImageDecoder.last_weight``.
        highest: The weight is no higher than this.

    Returns:
        A scalar without a graph: the ratio of the two gradients' norms.

    References:
        Esser et al., Taming Transformers for High-Resolution Image Synthesis, 2020 (arXiv 2012.09841), equation 7.
    """
    gradients = torch.stack(
        [
            torch.autograd.grad(loss, last_weight, retain_graph=True)[0].detach().float()
            for loss in (reconstruction_loss, adversarial_loss)
        ]
    )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(gradients)
        gradients /= torch.distributed.get_world_size()
    pulls = gradients.flatten(1).norm(dim=1)
    return (pulls[0] / (pulls[1] + 1e-4)).clamp(max=highest)
