"""The Fréchet distance between two sets of images: their features are compared as two Gaussians."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.evaluation.features import Projection, image_features
from rasterwise.errors import InputError, NonFiniteError

REFERENCE_IMAGES = 5000
LEAST_IMAGES = 16
"""A distance of fewer images is not reported."""


def gaussian_frechet(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """Squared Fréchet distance |μa − μb|² + tr(Σa + Σb − 2(Σa Σb)^½) of two Gaussians, in float64.

    Args:
        mean_a: ``(D,)``.
        covariance_a: ``(D, D)``.
        mean_b: ``(D,)``.
        covariance_b: ``(D, D)``.

    Raises:
        NonFiniteError: A mean or a covariance is infinite or NaN.

    References:
        Dowson and Landau, The Fréchet Distance between Multivariate Normal Distributions, 1982. Heusel et al.,
        GANs Trained by a Two Time-Scale Update Rule, 2017 (arXiv 1706.08500).
    """
    _refuse_non_finite(mean_a, covariance_a, mean_b, covariance_b)
    # tr (Σa Σb)^½ from the eigenvalues of the symmetric Σa^½ Σb Σa^½. Only rounding makes one of them negative.
    values, vectors = torch.linalg.eigh(covariance_a.double())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    inner = torch.linalg.eigvalsh(root @ covariance_b.double() @ root).clamp(min=0).sqrt().sum()
    apart = (mean_a.double() - mean_b.double()).square().sum()
    distance = apart + covariance_a.double().trace() + covariance_b.double().trace() - 2 * inner
    return float(distance.clamp(min=0))  # rounding alone takes it below; NaN stays NaN


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance between two sets of features ``(N, D)`` and ``(M, D)``, as Gaussians.

    Example:
        >>> import torch
        >>> points = torch.randn(50, 3, dtype=torch.float64)
        >>> round(frechet_distance(points, points), 6), round(frechet_distance(points, points + 2), 6)
        (0.0, 12.0)
    """
    if min(len(a), len(b)) < 2:
        raise InputError(
            f"a distance of {len(a)} and {len(b)} images was asked for, expected 2 or more of each"
        )
    if min(len(a), len(b)) >= a.shape[1]:
        return gaussian_frechet(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))
    # With Σa = AᵀA and Σb = BᵀB, tr (Σa Σb)^½ is the sum of the singular values of ABᵀ: as small as images are few.
    means = [points.double().mean(0) for points in (a, b)]
    roots = [(points - mean) / math.sqrt(len(points) - 1) for points, mean in zip((a, b), means, strict=True)]
    _refuse_non_finite(*roots)
    inner = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    distance = (means[0] - means[1]).square().sum() + sum(root.square().sum() for root in roots) - 2 * inner
    return float(distance.clamp(min=0))


def _refuse_non_finite(*parts: Tensor) -> None:
    if not all(part.isfinite().all() for part in parts):
        raise NonFiniteError("the features of the images have infinite or NaN moments: they have no distance")


@dataclass(frozen=True)
class Distances:
    """How far drawn images are from the training images.

    Attributes:
        drawn: The Fréchet distance of the drawn images.
        floor: The distance of as many held-out real images: what a perfect model would reach.
        images: How many of each were taken. The distance falls as their number grows, so that only distances of
            equally many images compare.
    """

    drawn: float
    floor: float
    images: int


def distances(reference: Tensor, held_out: Tensor, drawn: Tensor) -> Distances | None:
    """Distances in ``image_features``; None where there are too few images.

    Args:
        reference: Training images, uint8 ``(N, C, H, W)``.
        held_out: Test images.
        drawn: Images that a model drew.
    """
    projection = Projection.fit(image_features(reference))
    return distances_in(lambda images: projection(image_features(images)), reference, held_out, drawn)


def distances_in(
    features: Callable[[Tensor], Tensor], reference: Tensor, held_out: Tensor, drawn: Tensor
) -> Distances | None:
    """As ``distances``, in any features: uint8 images ``(N, C, H, W)`` to float ``(N, D)``."""
    count = min(len(held_out), len(drawn))
    if count < LEAST_IMAGES:
        return None
    target = features(reference)
    far, near = (frechet_distance(features(images[:count]), target) for images in (drawn, held_out))
    return Distances(far, near, count)
