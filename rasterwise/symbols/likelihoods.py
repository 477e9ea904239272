"""Likelihoods of symbols: each a proper distribution over the K levels, in nats."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.errors import NonFiniteError


def categorical_log_prob(logits: Tensor, symbols: Tensor) -> Tensor:
    """Log-probability of symbols under a softmax.

    Args:
        logits: ``(..., K)``, any float dtype; half precisions are raised to float32.
        symbols: int64 ``(...)`` in ``[0, K)``.

    Returns:
        ``(...)`` nats, float32 or float64.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    nats = F.cross_entropy(logits.flatten(0, -2), symbols.flatten(), reduction="none")
    return -nats.view(symbols.shape)


def discretized_logistic_log_prob(mean: Tensor, log_scale: Tensor, symbols: Tensor, levels: int) -> Tensor:
    """Log-probability of symbols under a logistic distribution discretized to K levels.

    Level k stands for the point ``2k / (K - 1) - 1`` and takes the logistic's mass on the bin of width
    ``2 / (K - 1)`` around it; the first and last bins reach to infinity, so that the K masses sum to 1.
    A bin's mass σ(b) − σ(a) is computed as σ(b) · σ(−a) · (1 − exp(a − b)), which is exact and loses
    nothing in the tails: no mass needs a floor and every gradient is finite.

    Args:
        mean: ``(...)``, on the scale where images lie in [-1, 1].
        log_scale: ``(...)``, natural logarithm of the logistic's scale.
        symbols: int64 ``(...)`` in ``[0, K)``.
        levels: K.

    Returns:
        ``(...)`` nats.

    References:
        Salimans et al., PixelCNN++, 2017 (arXiv 1701.05517), section 2.1.

    Example:
        >>> import torch
        >>> symbols = torch.arange(256)
        >>> nats = discretized_logistic_log_prob(torch.tensor(0.3), torch.tensor(-2.0), symbols, 256)
        >>> round(nats.exp().sum().item(), 5)
        1.0
    """
    log_scale = bounded_log_scale(log_scale)
    inverse_scale = torch.exp(-log_scale)
    level = symbols.to(mean.dtype)
    upper = F.logsigmoid((upper_bin_edges(level, levels) - mean) * inverse_scale)  # log σ(b)
    lower = F.logsigmoid((mean - upper_bin_edges(level - 1, levels)) * inverse_scale)  # log σ(−a)
    width = bin_log_width(log_scale, levels)
    first, last = symbols == 0, symbols == levels - 1
    zero = torch.zeros((), dtype=mean.dtype, device=mean.device)
    return (
        torch.where(last, zero, upper)
        + torch.where(first, zero, lower)
        + torch.where(first | last, zero, width)
    )


def bounded_log_scale(log_scale: Tensor) -> Tensor:
    """A log-scale in [-30, 30], outside of which float32 would lose bins to infinities or to zero widths."""
    return log_scale.clamp(-30, 30)


def upper_bin_edges(level: Tensor, levels: int) -> Tensor:
    """The edge between each level and the next one, as a value.

    A level's lower edge is the upper edge of the level below it to the last bit: at a small scale the two
    would else leave a gap, and the masses would not sum to 1.
    """
    return (2 * level + (2 - levels)) / (levels - 1)


def bin_log_width(log_scale: Tensor, levels: int) -> Tensor:
    """log(1 − exp(a − b)) of an inner bin with standardised edges a and b."""
    return torch.log(-torch.expm1(-2 / (levels - 1) * torch.exp(-log_scale)))


def finite_log_prob(log_prob: Tensor) -> Tensor:
    """Log-probabilities ``(B,)`` as they are, if all are finite. Reading them waits for the device.

    Raises:
        NonFiniteError: One is infinite or NaN, as the logits of a model are that overflows.
    """
    if not torch.compiler.is_compiling() and not bool(log_prob.isfinite().all()):
        raise NonFiniteError(
            f"the model's log-probabilities of {int((~log_prob.isfinite()).sum())} of {log_prob.numel()} grids are "
            "infinite or NaN: its weights are too large, or the precision is too low"
        )
    return log_prob


def bits_per_dim(nll_nats: float, subpixels: int) -> float:
    """Nats of a whole image as bits a subpixel.

    Args:
        nll_nats: Negative log-likelihood of an image in nats.
        subpixels: Channels · height · width of the image (not of a code grid).
    """
    return nll_nats / (math.log(2) * subpixels)
