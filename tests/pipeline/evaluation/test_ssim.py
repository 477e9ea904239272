"""Structural similarity."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.evaluation.ssim import structural_similarity
from rasterwise.errors import InputError


def random_images(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8)


def by_hand(a: Tensor, b: Tensor) -> float:
    """The formula of the paper, equation 13, a window at a time."""
    weights = [
        [math.exp(-((row - 5) ** 2 + (column - 5) ** 2) / 4.5) for column in range(11)] for row in range(11)
    ]
    window = torch.tensor(weights, dtype=torch.float64)
    window /= window.sum()
    values = []
    for row in range(a.shape[0] - 10):
        for column in range(a.shape[1] - 10):
            x, y = (one[row : row + 11, column : column + 11].double() for one in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            variance_x, variance_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            values.append(
                (2 * mean_x * mean_y + 6.5025)
                * (2 * covariance + 58.5225)
                / ((mean_x**2 + mean_y**2 + 6.5025) * (variance_x + variance_y + 58.5225))
            )
    return float(torch.stack(values).mean())


def test_it_is_the_formula_of_the_paper() -> None:
    a, b = random_images(2, 14, 13)
    found = structural_similarity(a[None, None], b[None, None]).item()
    assert found == pytest.approx(by_hand(a, b), abs=1e-12)


def test_known_values() -> None:
    """Equal images have 1; of flat ones the brightness alone counts; a negative is below 0."""
    image = random_images(1, 1, 16, 16)
    assert structural_similarity(image, image).item() == pytest.approx(1, abs=1e-12)
    assert structural_similarity(image, 255 - image).item() < -0.5
    dark, bright = (torch.full((1, 1, 12, 12), level, dtype=torch.uint8) for level in (50, 150))
    expected = (2 * 50 * 150 + 6.5025) / (50**2 + 150**2 + 6.5025)
    assert structural_similarity(dark, bright).item() == pytest.approx(expected, abs=1e-9)


def test_each_image_and_channel_by_itself() -> None:
    a, b = random_images(3, 3, 12, 15), random_images(3, 3, 12, 15)
    found = structural_similarity(a, b)
    assert found.shape == (3,)
    channels = [structural_similarity(a[1:2, c : c + 1], b[1:2, c : c + 1]).item() for c in range(3)]
    assert found[1].item() == pytest.approx(sum(channels) / 3, abs=1e-12)


def test_small_images_are_refused() -> None:
    with pytest.raises(InputError, match="images are 8×12, but SSIM needs 11×11 or more"):
        structural_similarity(random_images(1, 1, 8, 12), random_images(1, 1, 8, 12))
