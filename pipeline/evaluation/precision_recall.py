"""Precision and recall of a set of drawn images: how many look real, and how much of what is real they cover."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rasterwise.errors import InputError

NEIGHBOURS = 3
ROWS = 512
"""Distances are computed for so many points at a time."""


@dataclass(frozen=True)
class PrecisionRecall:
    """How two sets of images overlap.

    Attributes:
        precision: The share of drawn images that lie among the real ones.
        recall: The share of real images that lie among the drawn ones.
    """

    precision: float
    recall: float


def precision_recall(real: Tensor, drawn: Tensor, neighbours: int = NEIGHBOURS) -> PrecisionRecall:
    """Precision and recall by balls around every point, which reach to its k-th neighbour of the same set.

    Both depend on how many points there are: only equal numbers compare.

    Args:
        real: Features of real images, float ``(N, D)``.
        drawn: Features of drawn images, float ``(M, D)``.
        neighbours: k.

    Raises:
        InputError: A set has no more than k points.

    References:
        Kynkäänniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019
        (arXiv 1904.06991).

    Example:
        >>> import torch
        >>> real = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> precision_recall(real, real[real[:, 0] > 0])  # a half of what is real
        PrecisionRecall(precision=1.0, recall=0.575)
    """
    if min(len(real), len(drawn)) <= neighbours:
        raise InputError(
            f"precision and recall of {len(real)} and {len(drawn)} images were asked for, "
            f"expected more than {neighbours} of each"
        )
    return PrecisionRecall(
        precision=_share_inside(drawn, real, _radii(real, neighbours)),
        recall=_share_inside(real, drawn, _radii(drawn, neighbours)),
    )


def _radii(points: Tensor, neighbours: int) -> Tensor:
    """The distance of every point to its k-th neighbour, ``(N,)``; the nearest of all is the point itself."""
    parts = [torch.cdist(part, points).kthvalue(neighbours + 1, dim=1).values for part in points.split(ROWS)]
    return torch.cat(parts)


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """The share of points that lie in a ball around any centre."""
    inside = [(torch.cdist(part, centres) <= radii).any(1) for part in points.split(ROWS)]
    return float(torch.cat(inside).double().mean())
