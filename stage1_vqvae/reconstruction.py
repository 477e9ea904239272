"""Reconstructions, and images between uint8 and [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Reconstruction:
    """What the VQ-VAE makes of images.

    Attributes:
        mean: Reconstructed images on the scale where images lie in [-1, 1], float ``(B, C, H, W)``.
        log_scale: Of the logistic at each subpixel, float ``(B, C, H, W)``; None without that likelihood.
        codes: int64 ``(B, H/f, W/f)``.
        commitment_loss: Scalar, weighted.
    """

    mean: Tensor
    log_scale: Tensor | None
    codes: Tensor
    commitment_loss: Tensor

    @property
    def images(self) -> Tensor:
        """The reconstructed images, uint8 ``(B, C, H, W)``."""
        return to_levels(self.mean)


def to_unit(images: Tensor, module: nn.Module) -> Tensor:
    """uint8 images to floats in [-1, 1], in a module's dtype."""
    return images.to(next(module.parameters()).dtype) / 127.5 - 1


def to_levels(mean: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8."""
    return ((mean + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
