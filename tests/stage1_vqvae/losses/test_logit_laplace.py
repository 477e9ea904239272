"""The logit-Laplace distribution: its density integrates to 1, its masses sum to 1 and are those integrals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from stage1_vqvae.losses.logit_laplace import (
    MARGIN,
    discretized_logit_laplace_log_prob,
    from_open_interval,
    logit_laplace_log_density,
    to_open_interval,
)

EXTREME_LOCATIONS = (-1e6, -30.0, -2.2, -1.0, 0.0, 0.7, 2.2, 30.0, 1e6)
EXTREME_LOG_SCALES = (-1000.0, -30.0, -7.0, -1.0, 0.0, 5.0, 30.0, 1000.0)


def all_levels(location: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    symbols = torch.arange(levels).expand(*location.shape, levels)
    return discretized_logit_laplace_log_prob(location[..., None], log_scale[..., None], symbols, levels)


@pytest.mark.parametrize("location", [-3.0, 0.0, 0.4, 2.5])
@pytest.mark.parametrize("scale", [0.05, 0.5, 0.9, 1.5])
def test_the_density_integrates_to_one(location: float, scale: float) -> None:
    """By adaptive quadrature over (0, 1), on both sides of the median, where the density has its kink."""

    def density(value: float) -> float:
        parameters = (torch.tensor(one, dtype=torch.float64) for one in (location, math.log(scale), value))
        return logit_laplace_log_density(*parameters).exp().item()

    median = 1 / (1 + math.exp(-location))
    below, _ = quad(density, 0, median, epsabs=1e-10, limit=200)
    above, _ = quad(density, median, 1, epsabs=1e-10, limit=200)
    assert below == pytest.approx(0.5, abs=1e-6)
    assert above == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("levels", [2, 3, 255, 256])
def test_the_masses_sum_to_one(levels: int) -> None:
    """For extreme and random parameters; also where the median lies on a bin's edge."""
    edges = torch.logit(to_open_interval(torch.arange(levels - 1, dtype=torch.float64) + 0.5, levels))
    locations = torch.cat([torch.tensor(EXTREME_LOCATIONS).double(), edges, torch.randn(20).double()])
    scales = torch.cat([torch.tensor(EXTREME_LOG_SCALES).double(), torch.randn(20).double() * 3])
    nats = all_levels(*torch.meshgrid(locations, scales, indexing="ij"), levels)
    assert nats.isfinite().all()
    assert (nats.exp().sum(-1) - 1).abs().max() < 1e-9


def test_the_masses_are_integrals_of_the_density() -> None:
    """Every inner bin to 11 digits, by Gauss-Legendre quadrature in the logit; far tails included."""
    levels, location, log_scale = 256, torch.tensor(-1.0).double(), torch.tensor(-5.0).double()
    symbols = torch.arange(1, levels - 1)
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(48))
    half = (1 - 2 * MARGIN) / (levels - 1) / 2
    values = to_open_interval(symbols.double(), levels)[:, None] + half * nodes
    integral = (logit_laplace_log_density(location, log_scale, values) + (half * weights).log()).logsumexp(1)
    nats = discretized_logit_laplace_log_prob(location, log_scale, symbols, levels)
    median = int(((torch.sigmoid(location) - MARGIN) / (1 - 2 * MARGIN) * 255).round())
    smooth = symbols != median  # the quadrature does not see the kink
    assert integral.min() < -400
    assert (nats - integral)[smooth].abs().max() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 256])
def test_gradients_are_finite(levels: int, dtype: torch.dtype) -> None:
    """For every symbol and every extreme of the parameters."""
    locations, scales = torch.meshgrid(
        torch.tensor(EXTREME_LOCATIONS, dtype=dtype),
        torch.tensor(EXTREME_LOG_SCALES, dtype=dtype),
        indexing="ij",
    )
    locations, scales = locations.clone().requires_grad_(), scales.clone().requires_grad_()
    nats = all_levels(locations, scales, levels)
    assert nats.isfinite().all()
    for gradient in torch.autograd.grad(nats.sum(), (locations, scales)):
        assert gradient.isfinite().all()


def test_levels_and_the_open_interval() -> None:
    """0 and 255 are 0.1 and 0.9, and -1 and 1 among images."""
    values = to_open_interval(torch.tensor([0.0, 127.5, 255.0], dtype=torch.float64), 256)
    assert torch.allclose(values, torch.tensor([0.1, 0.5, 0.9]).double(), atol=1e-7)
    assert torch.allclose(from_open_interval(values), torch.tensor([-1.0, 0, 1]).double(), atol=1e-7)
