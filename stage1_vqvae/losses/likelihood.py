"""What a decoder's outputs say of an image: its mean, an error to minimise and, of some, −log p."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rasterwise.images import to_unit
from rasterwise.symbols.likelihoods import discretized_logistic_log_prob
from stage1_vqvae.losses.logit_laplace import (
    discretized_logit_laplace_log_prob,
    from_open_interval,
    logit_laplace_log_density,
    to_open_interval,
)

LEVELS = 256


class Likelihood(ABC):
    """What a decoder is trained for.

    All methods take the decoder's outputs, float ``(B, outputs_per_subpixel · C, H, W)``, and raise half precision
    to float32. Images are uint8 ``(B, C, H, W)``.

    Attributes:
        name: Of the error in metrics, with its unit.
        outputs_per_subpixel: How many channels the decoder gives for each channel of the image.
        has_nats: Whether it is a distribution of images.
    """

    name: str
    outputs_per_subpixel: int = 1
    has_nats: bool = False

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """The reconstruction, float ``(B, C, H, W)``; images lie in [-1, 1], and it may reach beyond."""

    @abstractmethod
    def error(self, outputs: Tensor, images: Tensor) -> Tensor:
        """What is minimised, ``(B,)``: an average over the image's subpixels."""

    def nats(self, outputs: Tensor, images: Tensor) -> Tensor:
        """−log p(image | outputs) of the whole image, ``(B,)``; the probabilities of all images sum to 1."""
        raise NotImplementedError(f"{self.name} is no likelihood of images")


class SquaredError(Likelihood):
    """The squared error of images in [-1, 1]."""

    name = "mse"

    def mean(self, outputs: Tensor) -> Tensor:
        return raised(outputs)

    def error(self, outputs: Tensor, images: Tensor) -> Tensor:
        outputs = raised(outputs)
        return (outputs - to_unit(images, outputs.dtype)).square().flatten(1).mean(1)


class AbsoluteError(SquaredError):
    """The absolute error of images in [-1, 1]."""

    name = "mae"

    def error(self, outputs: Tensor, images: Tensor) -> Tensor:
        outputs = raised(outputs)
        return (outputs - to_unit(images, outputs.dtype)).abs().flatten(1).mean(1)


class _LocationScale(Likelihood):
    """Each subpixel has a location and the logarithm of a scale."""

    outputs_per_subpixel = 2
    has_nats = True

    def parameters(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Location and log-scale, ``(B, C, H, W)`` each."""
        location, log_scale = raised(outputs).chunk(2, dim=1)
        # A scale far below a bin's width adds nothing but steep gradients (PixelCNN++ bounds it alike).
        return location, (log_scale - 2).clamp(min=-7)

    def error(self, outputs: Tensor, images: Tensor) -> Tensor:
        return self.nats(outputs, images) / math.prod(images.shape[1:])


class DiscretizedLogistic(_LocationScale):
    """A logistic distribution at each subpixel, discretized to 256 levels; see ``discretized_logistic_log_prob``."""

    name = "nats_per_dim"

    def mean(self, outputs: Tensor) -> Tensor:
        return self.parameters(outputs)[0]

    def nats(self, outputs: Tensor, images: Tensor) -> Tensor:
        nats = discretized_logistic_log_prob(*self.parameters(outputs), images.long(), LEVELS)
        return -nats.flatten(1).sum(1)


class LogitLaplace(_LocationScale):
    """A logit-Laplace distribution at each subpixel, whose levels lie in [0.1, 0.9].

    The error is the paper's: the negative log-density at the level itself, which can be below 0. The nats are those
    of the distribution discretized to 256 levels, so that they compare with other likelihoods'.

    References:
        Ramesh et al., Zero-Shot Text-to-Image Generation, 2021 (arXiv 2102.12092), appendix A.3.
    """

    name = "negative_log_density_per_dim"

    def mean(self, outputs: Tensor) -> Tensor:
        """The distribution's median."""
        return from_open_interval(torch.sigmoid(self.parameters(outputs)[0]))

    def error(self, outputs: Tensor, images: Tensor) -> Tensor:
        location, log_scale = self.parameters(outputs)
        values = to_open_interval(images.to(location.dtype), LEVELS)
        return -logit_laplace_log_density(location, log_scale, values).flatten(1).mean(1)

    def nats(self, outputs: Tensor, images: Tensor) -> Tensor:
        nats = discretized_logit_laplace_log_prob(*self.parameters(outputs), images.long(), LEVELS)
        return -nats.flatten(1).sum(1)


LIKELIHOODS: dict[str, Likelihood] = {
    "mse": SquaredError(),
    "mae": AbsoluteError(),
    "logistic": DiscretizedLogistic(),
    "logit-laplace": LogitLaplace(),
}
"""Every likelihood by the name that ``--likelihood`` takes."""


def raised(outputs: Tensor) -> Tensor:
    """float32, or float64 as it is."""
    return outputs if outputs.dtype == torch.float64 else outputs.float()
