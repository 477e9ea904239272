"""The logit-Laplace distribution: the Laplace distribution of the logit, for values between 0 and 1."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.symbols.likelihoods import bounded_log_scale

MARGIN = 0.1
"""Levels lie in [margin, 1 − margin]: at 0 and 1 the logit is infinite."""


def to_open_interval(level: Tensor, levels: int) -> Tensor:
    """Levels 0 to K − 1, in between too, to values in [0.1, 0.9]."""
    return level * ((1 - 2 * MARGIN) / (levels - 1)) + MARGIN


def from_open_interval(values: Tensor) -> Tensor:
    """Values in [0.1, 0.9] to [-1, 1], where images lie; what is further out comes out further out."""
    return (values - 0.5) * (2 / (1 - 2 * MARGIN))


def logit_laplace_log_density(location: Tensor, log_scale: Tensor, values: Tensor) -> Tensor:
    """Log-density at values between 0 and 1; over them it integrates to 1.

    Args:
        location: ``(...)``: the median of the logit.
        log_scale: ``(...)``: natural logarithm of the Laplace distribution's scale b.
        values: ``(...)``, between 0 and 1.

    Returns:
        ``(...)`` nats: log of exp(−|logit x − μ| / b) / (2 b x (1 − x)).

    References:
        Ramesh et al., Zero-Shot Text-to-Image Generation, 2021 (arXiv 2102.12092), appendix A.3.
    """
    logit = torch.logit(values)
    apart = (logit - location).abs() * torch.exp(-log_scale)
    # −log x − log(1 − x) by the logit, so that nothing is lost near 0 and 1.
    return -apart - log_scale - math.log(2) - F.logsigmoid(logit) - F.logsigmoid(-logit)


def discretized_logit_laplace_log_prob(
    location: Tensor, log_scale: Tensor, symbols: Tensor, levels: int
) -> Tensor:
    """Log-probability of symbols: level k has the mass between the middles to its neighbours.

    The first bin begins at 0 and the last one ends at 1, so that the K masses sum to 1. Far tails keep their
    precision, and every gradient is finite.

    Args:
        location: ``(...)``: the median of the logit.
        log_scale: ``(...)``: natural logarithm of the Laplace distribution's scale b.
        symbols: int64 ``(...)`` in ``[0, K)``.
        levels: K.

    Returns:
        ``(...)`` nats.

    Example:
        >>> import torch
        >>> symbols = torch.arange(256)
        >>> nats = discretized_logit_laplace_log_prob(torch.tensor(0.3), torch.tensor(-2.0), symbols, 256)
        >>> round(nats.exp().sum().item(), 5)
        1.0
    """
    level = symbols.to(location.dtype)
    inverse_scale = torch.exp(-bounded_log_scale(log_scale))
    first, last = symbols == 0, symbols == levels - 1
    lower, upper = (
        torch.logit(to_open_interval((level + step).clamp(0, levels - 1), levels)) for step in (-0.5, 0.5)
    )
    width = ((upper - lower) * inverse_scale).masked_fill(first | last, math.inf)
    a = ((lower - location) * inverse_scale).masked_fill(first, -math.inf)
    b = ((upper - location) * inverse_scale).masked_fill(last, math.inf)
    # A bin beyond the median is measured as its mirror image before it: half of e^b − e^a with a < b ≤ 0.
    a, b = torch.where(a > 0, -b, a), torch.where(a > 0, -a, b)
    across = b > 0
    tail = b.masked_fill(across, 0) - math.log(2) + torch.log(-torch.expm1(-width))
    # What the selection leaves out must be finite too, or its gradient would be 0 times infinity.
    left, right = torch.where(across, a, -1), torch.where(across, b, 1)
    middle = torch.log(-(torch.expm1(left) + torch.expm1(-right)) / 2)
    return torch.where(across, middle, tail)
