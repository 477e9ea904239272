"""A fixed feature space of images that needs no download: oriented gradients and colours on a coarse grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 32
CELLS = 4
ORIENTATIONS = 8
DIMENSIONS = 32
LEAST_SCALE = 0.25
"""A share of the mean standard deviation: features that vary less are divided by this much."""

SPACE = (
    f"images at {SIDE}×{SIDE} (box filter); on a {CELLS}×{CELLS} grid the histogram of gradient directions "
    f"({ORIENTATIONS}, weighted by strength) and mean and standard deviation of each colour channel; standardised "
    f"and reduced to {DIMENSIONS} principal components on the training images"
)
"""The space in words."""


def image_features(images: Tensor) -> Tensor:
    """Features of images by fixed arithmetic; nothing in them is learned.

    Args:
        images: uint8 ``(B, C, H, W)``.

    Returns:
        float64 ``(B, 16 · (8 + 2C))``.

    References:
        Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, 2005 (CVPR; no arXiv number).

    Example:
        >>> import torch
        >>> image_features(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).shape
        torch.Size([2, 224])
    """
    small = F.interpolate(images.double() / 255, size=(SIDE, SIDE), mode="area")
    grey = small.mean(1, keepdim=True)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    strength = (across.square() + down.square()).sqrt()
    # A direction between two bins counts for both in proportion, so that the features change smoothly with the image.
    direction = (torch.atan2(down, across) / (2 * torch.pi)).remainder(1) * ORIENTATIONS
    bins = torch.arange(ORIENTATIONS, dtype=torch.float64, device=images.device).view(1, -1, 1, 1)
    apart = (direction - bins).remainder(ORIENTATIONS)
    share = (1 - torch.minimum(apart, ORIENTATIONS - apart)).clamp(min=0)
    histograms = F.avg_pool2d(strength * share, SIDE // CELLS)
    means = F.avg_pool2d(small, SIDE // CELLS)
    squares = F.avg_pool2d(small.square(), SIDE // CELLS)
    # A patch of one colour has variance 0: rounding may take it below 0, and the slope of the root is infinite there.
    deviations = (squares - means.square()).clamp(min=1e-12).sqrt()
    return torch.cat([histograms, means, deviations], 1).flatten(1)


@dataclass(frozen=True)
class Projection:
    """Standardisation and principal components, fitted once and applied to all images that are compared.

    Attributes:
        mean: ``(F,)``, subtracted first.
        scale: ``(F,)``, divided by next.
        components: ``(F, D)``, orthonormal columns.
    """

    mean: Tensor
    scale: Tensor
    components: Tensor

    @classmethod
    def fit(cls, features: Tensor, dimensions: int = DIMENSIONS) -> Self:
        """Fit to features ``(N, F)``, N at least 2, which have at most N − 1 components."""
        mean = features.mean(0)
        deviations = features.std(0)
        # Where all images are nearly alike, as in a corner that is always black, tiny differences would weigh much.
        scale = deviations.clamp(min=LEAST_SCALE * float(deviations.mean()) + 1e-12)
        _, _, rows = torch.linalg.svd((features - mean) / scale, full_matrices=False)
        return cls(mean, scale, rows[: min(dimensions, len(features) - 1)].T)

    def __call__(self, features: Tensor) -> Tensor:
        """Features ``(N, F)`` to ``(N, D)``."""
        return (features - self.mean) / self.scale @ self.components
