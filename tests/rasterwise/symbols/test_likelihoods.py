"""Likelihoods are proper distributions, exact in the tails, with finite gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.errors import NonFiniteError
from rasterwise.symbols.likelihoods import (
    bits_per_dim,
    categorical_log_prob,
    discretized_logistic_log_prob,
    finite_log_prob,
)

EXTREME_MEANS = (-1e6, -40.0, -1.0, -1 + 1 / 255, 0.0, 0.5, 1.0, 3.0, 1e6)
EXTREME_LOG_SCALES = (-1000.0, -40.0, -25.0, -7.0, -1.0, 0.0, 5.0, 20.0, 1000.0)


def all_levels(mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    symbols = torch.arange(levels).expand(*mean.shape, levels)
    return discretized_logistic_log_prob(mean[..., None], log_scale[..., None], symbols, levels)


@pytest.mark.parametrize("levels", [2, 3, 16, 255, 256])
def test_discretized_logistic_is_normalised(levels: int) -> None:
    """The K masses sum to 1 for extreme and random parameters; also where a mean lies on a bin's edge."""
    edges = (2 * torch.arange(levels - 1, dtype=torch.float64) + 2 - levels) / (levels - 1)
    means = torch.cat([torch.tensor(EXTREME_MEANS, dtype=torch.float64), edges, torch.randn(20).double()])
    scales = torch.cat([torch.tensor(EXTREME_LOG_SCALES, dtype=torch.float64), torch.randn(20).double() * 4])
    nats = all_levels(*torch.meshgrid(means, scales, indexing="ij"), levels)
    assert (nats.exp().sum(-1) - 1).abs().max() < 1e-9
    assert nats.isfinite().all()


def test_discretized_logistic_is_the_difference_of_the_cdf() -> None:
    """Where the difference of two sigmoids is well conditioned, it is the same."""
    levels = 256
    mean = torch.linspace(-1.2, 1.2, 25, dtype=torch.float64)[:, None, None]
    log_scale = torch.linspace(-3, 1, 9, dtype=torch.float64)[:, None]
    symbols = torch.arange(levels).expand(25, 9, -1)
    upper = torch.sigmoid(((2 * symbols.double() + 1) / (levels - 1) - 1 - mean) / log_scale.exp())
    lower = torch.sigmoid(((2 * symbols.double() - 1) / (levels - 1) - 1 - mean) / log_scale.exp())
    upper, lower = upper.masked_fill(symbols == levels - 1, 1.0), lower.masked_fill(symbols == 0, 0.0)
    mass = upper - lower
    nats = discretized_logistic_log_prob(mean, log_scale, symbols, levels)
    assert ((nats.exp() - mass).abs() < 1e-14).all()
    well = (mass > 1e-6) & (mass < 0.5)
    assert well.sum() > 10_000
    assert ((nats.exp() - mass).abs() / mass)[well].max() < 1e-8


def test_discretized_logistic_is_the_integral_of_the_density() -> None:
    """Every inner bin holds the integral of the logistic density over it, to 12 digits, far tails included."""
    levels, mean, scale = 256, -1.0, math.exp(-5.0)
    symbols = torch.arange(1, levels - 1)
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(24))
    centres, half = symbols.double()[:, None] * 2 / (levels - 1) - 1, 1 / (levels - 1)
    standardised = ((centres + half * nodes) - mean) / scale
    log_density = 2 * F.logsigmoid(standardised) - standardised - math.log(scale)
    integral = (log_density + (half * weights).log()).logsumexp(1)
    nats = discretized_logistic_log_prob(
        torch.tensor(mean).double(), torch.tensor(-5.0).double(), symbols, levels
    )
    assert integral.min() < -200
    assert (nats - integral).abs().max() < 1e-11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 256])
def test_discretized_logistic_has_finite_gradients(levels: int, dtype: torch.dtype) -> None:
    """Values and gradients are finite for every symbol and every extreme of the parameters."""
    means, scales = torch.meshgrid(
        torch.tensor(EXTREME_MEANS, dtype=dtype), torch.tensor(EXTREME_LOG_SCALES, dtype=dtype), indexing="ij"
    )
    means, scales = means.clone().requires_grad_(), scales.clone().requires_grad_()
    nats = all_levels(means, scales, levels)
    assert nats.isfinite().all()
    for gradient in torch.autograd.grad(nats.sum(), (means, scales)):
        assert gradient.isfinite().all()


def test_categorical_raises_half_precision() -> None:
    """Logits in bfloat16 are scored in float32, those in float64 in float64."""
    logits, symbols = torch.randn(4, 5), torch.arange(4)
    scored = categorical_log_prob(logits.bfloat16(), symbols)
    expected = logits.bfloat16().float().log_softmax(-1).gather(-1, symbols[:, None])[:, 0]
    assert scored.dtype == torch.float32
    assert torch.allclose(scored, expected)
    assert categorical_log_prob(logits.double(), symbols).dtype == torch.float64


def test_bits_per_dim_of_a_uniform_image() -> None:
    """A uniform distribution over 256 levels costs 8 bits a subpixel."""
    assert bits_per_dim(12 * math.log(256), 12) == pytest.approx(8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_raised_inside_autocast(dtype: torch.dtype) -> None:
    """Logits in half precision give the nats of the same logits in float32, bit for bit."""
    logits = (5 * torch.randn(4, 3, 7)).to(dtype)
    symbols = torch.randint(7, (4, 3))
    with torch.autocast("cpu", dtype=dtype):
        nats = categorical_log_prob(logits, symbols)
    assert nats.dtype == torch.float32
    assert torch.equal(nats, categorical_log_prob(logits.float(), symbols))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_log_probabilities_that_are_not_finite_are_refused(value: float) -> None:
    """One of them is enough; how many there are is said."""
    whole = torch.tensor([-1.0, -2e30])
    assert finite_log_prob(whole) is whole
    with pytest.raises(NonFiniteError, match="of 1 of 3 grids are infinite or NaN"):
        finite_log_prob(torch.cat([whole, torch.tensor([value])]))
