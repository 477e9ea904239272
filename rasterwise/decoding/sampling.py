"""From logits to a drawn symbol: guidance, temperature, top-k and top-p, and the draw itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rasterwise.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How a symbol is drawn from a model's logits. The default draws from the model itself.

    The steps apply in this order: guidance, temperature, top-k, top-p.

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

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    noise: Literal["uniform", "gumbel"] = "uniform"

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}, expected 0 (greedy) or more")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}, expected 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}, expected above 0 and at most 1 (off)")

    def probabilities(self, logits: Tensor) -> Tensor:
        """The distribution that a symbol is drawn from, guidance hold_out.

        Args:
            logits: ``(..., K)``.

        Returns:
            ``(..., K)``, float32 or float64, summing to 1 over K.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if self.temperature == 0:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        if self.temperature != 1:
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
    """Classifier-free guidance: away from what the model gives untold, towards what it gives when told.

    Args:
        logits: ``(2B, ..., K)``: B rows that were told a condition, and after them the same rows untold.
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
        uniform: float64 ``(...)`` in ``[0, 1)``.

    Returns:
        int64 ``(...)``; a symbol of probability 0 is never drawn.
    """
    cumulative = probabilities.double().cumsum(-1)
    # One step below 1 keeps the product strictly under the total after rounding, so that the search never
    # runs past the last symbol that has mass.
    threshold = uniform.clamp(max=1 - 2**-52)[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[..., 0]


def draw_by_gumbel(probabilities: Tensor, seeds: Tensor, places: Tensor) -> Tensor:
    """Draw symbols as the largest of their log-probabilities with Gumbel noise.

    Args:
        probabilities: ``(B, K)`` or ``(B, T, K)``, non-negative; they need not be normalised.
        seeds: int64 ``(B,)``, one an image.
        places: int64 ``()`` or ``(T,)``: which symbols of an image they are. An image's noise at a place is a
            function of its seed and the place alone.

    Returns:
        int64 ``(B,)`` or ``(B, T)``; a symbol of probability 0 is never drawn.
    """
    # log p + Gumbel is −log of an exponential variable over p: the largest is the first of K arrivals.
    arrivals = -_uniform(seeds, places, probabilities.shape[-1]).log_() / probabilities
    return arrivals.argmin(-1)


def _uniform(seeds: Tensor, places: Tensor, levels: int) -> Tensor:
    """Numbers in (0, 1), float64 ``(B, ..., K)``: 53 bits of SplitMix64's output number place · K + k + 1.

    A generator's state would have to be kept for every image; a function of place and seed needs none, and
    gives the same numbers on every device.

    References:
        Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014 (OOPSLA).
    """
    numbers = places[..., None] * levels + torch.arange(1, levels + 1, device=seeds.device)
    state = seeds.view(-1, *[1] * numbers.ndim) + numbers * -0x61C8864680B583EB
    state = (state ^ _shifted(state, 30)) * -0x40A7B892E31B1A47
    state = (state ^ _shifted(state, 27)) * -0x6B2FB644ECCEEE15
    state = state ^ _shifted(state, 31)
    return (_shifted(state, 11).double() + 0.5) * 2.0**-53


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Shifted right, zeros coming in from the left: torch's own shift copies the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
