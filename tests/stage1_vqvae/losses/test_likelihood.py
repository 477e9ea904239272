"""Errors and likelihoods of reconstructions."""

from __future__ import annotations

import math

import pytest
import torch

from rasterwise.images import to_levels
from stage1_vqvae.losses.likelihood import LIKELIHOODS, Likelihood

EACH = pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)


def outputs_for(
    likelihood: Likelihood, images: torch.Tensor, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    batch, channels, height, width = images.shape
    return torch.randn(batch, channels * likelihood.outputs_per_subpixel, height, width, dtype=dtype)


def test_errors_of_known_reconstructions() -> None:
    """A half of the way from black to white, and a quarter."""
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    outputs = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2)
    assert LIKELIHOODS["mse"].error(outputs, images).item() == pytest.approx((1 + 0.25) / 2)
    assert LIKELIHOODS["mae"].error(outputs, images).item() == pytest.approx((1 + 0.5) / 2)


@EACH
def test_the_error_is_of_each_image_alone(likelihood: Likelihood) -> None:
    images = torch.randint(256, (3, 3, 4, 5), dtype=torch.uint8)
    outputs = outputs_for(likelihood, images)
    errors = likelihood.error(outputs, images)
    assert errors.shape == (3,)
    assert torch.allclose(errors[1:2], likelihood.error(outputs[1:2], images[1:2]))
    assert likelihood.mean(outputs).shape == images.shape


@EACH
def test_the_error_is_least_at_the_image(likelihood: Likelihood) -> None:
    """Of 6001 locations the one with the least error for a level decodes to that level."""
    levels = torch.tensor([0, 1, 90, 127, 200, 254, 255], dtype=torch.uint8)
    locations = torch.linspace(-3, 3, 6001, dtype=torch.float64).view(-1, 1, 1, 1)
    scales = torch.full_like(locations, -2)
    outputs = torch.cat([locations, scales], 1)[:, : likelihood.outputs_per_subpixel]
    for level in levels:
        best = likelihood.error(outputs, level.expand(6001, 1, 1, 1)).argmin()
        assert to_levels(likelihood.mean(outputs[best : best + 1])).item() == level


@EACH
def test_nats_are_a_distribution_of_images(likelihood: Likelihood) -> None:
    """The probabilities of all 256 images of one pixel sum to 1; of two channels, nats add up."""
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    outputs = outputs_for(likelihood, images[:1]).expand(256, -1, -1, -1)
    if not likelihood.has_nats:
        with pytest.raises(NotImplementedError):
            likelihood.nats(outputs, images)
        return
    assert torch.exp(-likelihood.nats(outputs, images)).sum().item() == pytest.approx(1, abs=1e-9)
    pair = torch.randint(256, (1, 2, 1, 1), dtype=torch.uint8)
    location, scale = torch.randn(2, 1, 2, 1, 1, dtype=torch.float64)
    both = likelihood.nats(torch.cat([location, scale], 1), pair)
    each = [
        likelihood.nats(torch.cat([location[:, c : c + 1], scale[:, c : c + 1]], 1), pair[:, c : c + 1])
        for c in (0, 1)
    ]
    assert both.item() == pytest.approx(sum(each).item())


def test_what_is_minimised_of_the_two_distributions() -> None:
    """Of the logistic the nats a subpixel; of the logit-Laplace the density, which the masses approach."""
    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    logistic, laplace = LIKELIHOODS["logistic"], LIKELIHOODS["logit-laplace"]
    outputs = outputs_for(logistic, images)
    assert torch.allclose(logistic.error(outputs, images) * 48, logistic.nats(outputs, images))
    bin_width = 0.8 / 255
    inner = images.clamp(1, 254)
    masses = laplace.nats(outputs + 2, inner) / 48  # wide, so that the density hardly changes within a bin
    assert torch.allclose(masses + math.log(bin_width), laplace.error(outputs + 2, inner), atol=1e-2)


@EACH
def test_half_precision_is_raised(likelihood: Likelihood) -> None:
    images = torch.randint(256, (2, 1, 3, 3), dtype=torch.uint8)
    outputs = outputs_for(likelihood, images, torch.float32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        errors, mean = likelihood.error(outputs, images), likelihood.mean(outputs)
    assert errors.dtype == mean.dtype == torch.float32
    assert torch.equal(errors, likelihood.error(outputs.float(), images))
