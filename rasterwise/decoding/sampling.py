"""From logits to a drawn symbol: guidance, temperature, top-k and top-p, and the draw itself."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rasterwise.configuration import CountOrZero, PositiveShare, Real, Weight, configuration
from rasterwise.errors import NonFiniteError

Noise = Literal["uniform", "gumbel"]

LOW_TEMPERATURE = 1e-6
"""Below it a quotient of logits and temperature may overflow."""


HIGHEST_UNIFORM = 1 - 2**-52
"""One step below the largest number under 1: the highest that ``draw`` takes."""


@configuration()
class Sampling:
    """How a symbol is drawn from a model's logits. The default draws from the model itself.

    The steps apply in this order: guidance, a grammar's mask (``constrain``), temperature, top-k, top-p.

    Attributes:
        temperature: Logits are divided by it; 0 always takes the likeliest symbol.
        top_k: Keep the k likeliest symbols (0: all).
        top_p: Keep the fewest likeliest symbols whose probabilities reach p together (1: all).
        guidance: Classifier-free guidance scale: 1 is the conditional model and 0 the unconditional one,
            exactly; above 1 the class is exaggerated.
        noise: What turns a distribution into a symbol: "uniform" inverts the cumulative distribution at one
            number, "gumbel" adds a Gumbel variable to each of the K log-probabilities and takes the largest.
            Both draw from the same distribution, other symbols. A symbol that was drawn with Gumbel noise is
            changed less often by a small change of its distribution, so that parallel sampling of codes takes
            fewer evaluations; it takes K numbers a symbol.

    References:
        Holtzman et al., The Curious Case of Neural Text Degeneration, 2020 (arXiv 1904.09751), for top-p.
        Ho and Salimans, Classifier-Free Diffusion Guidance, 2022 (arXiv 2207.12598).
        Maddison, Tarlow and Minka, A* Sampling, 2014 (arXiv 1411.0030), for Gumbel noise.

    Example:
        >>> import torch
        >>> from rasterwise import Sampling
        >>> logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
        >>> Sampling(top_p=0.7).probabilities(logits)
        tensor([[0.6250, 0.3750, 0.0000, 0.0000]])
    """

    temperature: Weight = 1.0
    top_k: CountOrZero = 0
    top_p: PositiveShare = 1.0
    guidance: Real = 1.0
    noise: Noise = "uniform"

    def probabilities(self, logits: Tensor) -> Tensor:
        """The distribution that a symbol is drawn from, given logits that have been guided.

        Args:
            logits: ``(..., K)``; −inf for a symbol that is impossible.

        Returns:
            ``(..., K)``, float32 or float64, summing to 1 over K. NaN where the logits are no distribution: one
            is NaN or +inf, or all are −inf.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if self.temperature == 0:
            likeliest = logits.max(-1, keepdim=True)
            one = likeliest.values * 0 + 1  # NaN where the largest logit is not finite
            return torch.zeros_like(logits).scatter_(-1, likeliest.indices, one)
        if self.temperature < LOW_TEMPERATURE:
            # The largest becomes 0 first, whatever it is divided by.
            logits = (logits - logits.amax(-1, keepdim=True)).double() / self.temperature
        elif self.temperature != 1:
            logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            kept = logits.topk(self.top_k, dim=-1)
            logits = torch.full_like(logits, -torch.inf).scatter_(-1, kept.indices, kept.values)
        probabilities = logits.softmax(-1)
        if self.top_p < 1:
            ordered, order = probabilities.sort(dim=-1, descending=True)
            # A symbol stays while those before it have not yet reached p; the first one always does.
            reached = ordered.cumsum(-1) - ordered
            ordered = torch.where(reached < self.top_p, ordered, 0.0)
            probabilities = torch.zeros_like(ordered).scatter_(-1, order, ordered)
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities


def guided(logits: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: away from the unconditional distribution, towards the conditional one.

    Args:
        logits: ``(2B, ..., K)``: B conditional rows, and after them the same rows unconditional.
        scale: 1 gives the conditional distribution, 0 the unconditional one.

    Returns:
        Logits ``(B, ..., K)``.

    References:
        Ho and Salimans, Classifier-Free Diffusion Guidance, 2022 (arXiv 2207.12598).
    """
    conditional, unconditional = logits.log_softmax(-1).chunk(2)
    return unconditional + scale * (conditional - unconditional)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draw symbols by inverting the cumulative distribution.

    The noise is an argument so that an image depends on its own noise alone, not on the batch that it is
    drawn in.

    Args:
        probabilities: ``(..., K)``, non-negative; they need not be normalised.
        uniform: float64 ``(...)`` in ``[0, HIGHEST_UNIFORM]``.

    Returns:
        int64 ``(...)`` in ``[0, K)``; a symbol of probability 0 is never drawn. K where probabilities are NaN,
        which ``check_drawn`` finds.
    """
    cumulative = probabilities.double().cumsum(-1)
    # At most HIGHEST_UNIFORM, the product stays strictly under the total after rounding, so that the search
    # never runs past the last symbol that has mass. It runs past all of them where the total is NaN.
    threshold = uniform[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[..., 0]


def draw_by_gumbel(probabilities: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    """Draw symbols as the largest of their log-probabilities with Gumbel noise.

    Args:
        probabilities: ``(B, T, K)``, non-negative; they need not be normalised.
        seeds: int64 ``(B,)``, one for each image.
        positions: int64 ``(T,)``: which symbols of an image they are. An image's noise at a position is a
            function of its seed and the position alone.

    Returns:
        int64 ``(B, T)``, as ``draw``.
    """
    # log p + Gumbel is −log of an exponential variable over p: the largest is the first of K arrivals.
    arrivals = -_uniform(seeds, positions, probabilities.shape[-1]).log_() / probabilities
    first = arrivals.min(-1)
    return torch.where(first.values.isnan(), probabilities.shape[-1], first.indices)


def check_drawn(symbols: Tensor, levels: int) -> None:
    """Read what was drawn; raise NonFiniteError where a symbol is K, drawn from what is no distribution."""
    if bool((symbols >= levels).any()):
        raise NonFiniteError(
            "the model's logits are NaN or infinite, so that no symbol can be drawn: look for weights that are "
            "not finite, or a precision that is too low"
        )


def _uniform(seeds: Tensor, positions: Tensor, levels: int) -> Tensor:
    """Numbers in (0, 1), float64 ``(B, T, K)``: 53 bits of SplitMix64's output number position · K + k + 1.

    A generator's state would have to be kept for every image; a function of seed and position needs none, and
    gives the same numbers on every device.

    References:
        Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014 (OOPSLA).
    """
    outputs = positions[:, None] * levels + torch.arange(1, levels + 1, device=seeds.device)
    state = seeds[:, None, None] + outputs * -0x61C8864680B583EB
    state = (state ^ _shifted(state, 30)) * -0x40A7B892E31B1A47
    state = (state ^ _shifted(state, 27)) * -0x6B2FB644ECCEEE15
    state = state ^ _shifted(state, 31)
    # The largest would round to 1, whose logarithm is 0: a symbol of probability 0 would come first.
    return ((_shifted(state, 11).double() + 0.5) * 2.0**-53).clamp_(max=1 - 2.0**-53)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Shifted right, zeros coming in from the left: torch's own shift copies the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
