"""The Fréchet distance: known values and what every distance has."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.evaluation.frechet import distances, frechet_distance, gaussian_frechet
from rasterwise.errors import InputError, NonFiniteError


def test_a_known_value() -> None:
    """Diagonal Gaussians: |μa − μb|² + Σ (√a − √b)²."""
    mean = torch.tensor([1.0, 2.0])
    found = gaussian_frechet(mean, torch.diag(torch.tensor([4.0, 9.0])), torch.zeros(2), torch.eye(2))
    assert math.isclose(found, 1 + 4 + 1 + 4, rel_tol=1e-12)


def test_properties() -> None:
    """Zero for the same set in any order, symmetric, unchanged by a rotation, also where ranks are low."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    b = torch.randn(30, 6, generator=generator, dtype=torch.float64) * 2 + 1
    assert frechet_distance(a, a.flip(0)) < 1e-9
    assert math.isclose(frechet_distance(a, b), frechet_distance(b, a), rel_tol=1e-9)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    assert math.isclose(frechet_distance(a @ rotation, b @ rotation), frechet_distance(a, b), rel_tol=1e-9)
    assert frechet_distance(a[:3], a[:3]) < 1e-9
    assert frechet_distance(a, b) > 5


def test_real_images_are_nearer_than_noise() -> None:
    """The distance of noise is many times that of held-out images of the same kind."""
    gradients = torch.arange(0, 256, 4).repeat(200, 1, 8, 1)[..., :8].clone()
    shifts = torch.randint(200, (200, 1, 1, 1))
    gradients = ((gradients + shifts) % 256).to(torch.uint8)
    noise = torch.randint(256, (32, 1, 8, 8), dtype=torch.uint8)
    found = distances(gradients[:150], gradients[150:], noise)
    assert found is not None
    assert found.images == 32
    assert found.drawn > 5 * found.floor


def test_too_few_images() -> None:
    images = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8)
    assert distances(images, images, images[:8]) is None
    with pytest.raises(InputError, match="expected 2 or more of each"):
        frechet_distance(torch.zeros(1, 2), torch.zeros(5, 2))


@pytest.mark.parametrize(("count", "others"), [(5, 40), (40, 5), (5, 4), (40, 30)])
def test_few_images(count: int, others: int) -> None:
    """Of fewer images than dimensions too, it is the distance of their two Gaussians."""
    a, b = (torch.randn(n, 12, dtype=torch.float64) * scale + scale for n, scale in ((count, 1), (others, 2)))
    expected = gaussian_frechet(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))
    assert math.isclose(frechet_distance(a, b), expected, rel_tol=1e-6)


@pytest.mark.parametrize("count", [2, 20])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_have_no_distance(value: float, count: int) -> None:
    """Least of all 0, which is that of equal sets."""
    a = torch.randn(count, 3)
    b = a.clone()
    b[1, 1] = value
    for pair in ((a, b), (b, a)):
        with pytest.raises(NonFiniteError, match="infinite or NaN moments"):
            frechet_distance(*pair)
