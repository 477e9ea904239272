"""Reconstructions and their likelihood, and images between uint8 and [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rasterwise.errors import InputError
from rasterwise.symbols.likelihoods import discretized_logistic_log_prob

LOGISTIC_LEVELS = 256


@dataclass(frozen=True)
class Reconstruction:
    """What a learned tokenizer makes of images in one forward pass.

    Attributes:
        mean: Reconstructed images on the scale where images lie in [-1, 1], float ``(B, C, H, W)``.
        log_scale: Of the logistic at each subpixel, float ``(B, C, H, W)``; None without that likelihood.
        codes: int64 ``(B, depth, H/f, W/f)``.
        auxiliary_loss: The quantizer's: scalar, weighted.
    """

    mean: Tensor
    log_scale: Tensor | None
    codes: Tensor
    auxiliary_loss: Tensor

    @property
    def images(self) -> Tensor:
        """The reconstructed images, uint8 ``(B, C, H, W)``."""
        return to_levels(self.mean)

    def nats(self, images: Tensor) -> Tensor:
        """−log p(image | codes) in nats.

        Args:
            images: The originals, uint8 ``(B, C, H, W)``.

        Returns:
            float ``(B,)``.

        Raises:
            InputError: There is no likelihood.
        """
        if self.log_scale is None:
            raise InputError(
                "this tokenizer was trained with likelihood mse; the ELBO needs --likelihood logistic"
            )
        nats = discretized_logistic_log_prob(self.mean, self.log_scale, images.long(), LOGISTIC_LEVELS)
        return -nats.flatten(1).sum(1)


def to_unit(images: Tensor, module: nn.Module) -> Tensor:
    """uint8 images to floats in [-1, 1], in a module's dtype."""
    return images.to(next(module.parameters()).dtype) / 127.5 - 1


def to_levels(mean: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8."""
    return ((mean + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
