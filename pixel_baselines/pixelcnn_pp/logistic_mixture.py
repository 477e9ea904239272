"""The likelihood of PixelCNN++: a discretized mixture of logistics over all channels of a site at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.symbols.likelihoods import (
    bin_log_width,
    bounded_log_scale,
    discretized_logistic_log_prob,
    upper_bin_edges,
)

ELEMENTS_AT_ONCE = 2**22
"""Sites × components × levels worked on at a time: bounds what the distributions of a whole batch cost."""


@dataclass(frozen=True)
class MixtureParameters:
    """What the network gives for each site; M components, C channels, any leading dimensions.

    Attributes:
        log_weights: ``(..., M)``, normalised.
        means: ``(..., C, M)``, on the scale where images lie in [-1, 1], before the earlier channels'
            share.
        log_scales: ``(..., C, M)``.
        coefficients: ``(..., C(C - 1)/2, M)`` in [-1, 1]: of R in G, of R in B, of G in B, and so on.
    """

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor

    def mean(self, channel: int, earlier: list[Tensor]) -> Tensor:
        """Means ``(..., M)`` of a channel, given the values ``(...)`` of those before it."""
        mean = self.means[..., channel, :]
        first = channel * (channel - 1) // 2
        for index, value in enumerate(earlier[:channel]):
            mean = mean + self.coefficients[..., first + index, :] * value[..., None]
        return mean

    def shifted(self, reference: Tensor) -> MixtureParameters:
        """The parameters of x, where these are of x − reference; the reference is ``(..., C, M)``."""
        reference = reference.to(self.means.dtype)
        means = []
        for channel in range(self.means.shape[-2]):
            mean = self.means[..., channel, :] + reference[..., channel, :]
            first = channel * (channel - 1) // 2
            for earlier in range(channel):
                mean = mean - self.coefficients[..., first + earlier, :] * reference[..., earlier, :]
            means.append(mean)
        return replace(self, means=torch.stack(means, -2))


@dataclass(frozen=True)
class LogisticMixture:
    """A distribution over the symbols of one site: M discretized logistics, shared by its channels.

    Given the component, each channel is a discretized logistic whose mean depends linearly on the values of
    the earlier channels; the component is summed out. One channel has no coefficients.

    Attributes:
        channels: C.
        levels: K.
        components: M.

    References:
        Salimans et al., PixelCNN++, 2017 (arXiv 1701.05517), sections 2.1 and 2.2.

    Example:
        >>> import torch
        >>> mixture = LogisticMixture(channels=3, levels=256, components=10)
        >>> mixture.parameter_count
        100
        >>> symbols = torch.tensor([[12, 200, 255]])
        >>> mixture.log_prob(torch.zeros(1, 100), symbols).shape
        torch.Size([1])
    """

    channels: int
    levels: int
    components: int

    def __post_init__(self) -> None:
        if self.components < 1:
            raise InputError(f"components is {self.components}, expected 1 or more")

    @property
    def parameter_count(self) -> int:
        """How many numbers the network gives for a site (P)."""
        return self.components * (1 + 2 * self.channels + self.channels * (self.channels - 1) // 2)

    @property
    def smallest_log_scale(self) -> float:
        """The paper's -7 for 256 levels; lower for more levels, so that one level can still take it all."""
        return -7.0 - max(0.0, math.log((self.levels - 1) / 255))

    def split(self, raw: Tensor, reference: Tensor | None = None) -> MixtureParameters:
        """What the network gives, ``(..., P)`` of any dtype, as parameters in float32 or float64.

        With a reference, ``(..., C, M)``, it is the values' differences to it that the network has given the means and
        coefficients of.
        """
        raw = raw if raw.dtype == torch.float64 else raw.float()
        weights, means, log_scales, coefficients = raw.unflatten(-1, (-1, self.components)).split(
            (1, self.channels, self.channels, self.channels * (self.channels - 1) // 2), -2
        )
        parameters = MixtureParameters(
            weights[..., 0, :].log_softmax(-1),
            means,
            log_scales.clamp(min=self.smallest_log_scale),
            coefficients.tanh(),
        )
        return parameters if reference is None else parameters.shifted(reference)

    def values(self, symbols: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Symbols as values in [-1, 1]."""
        return symbols.to(dtype) * (2 / (self.levels - 1)) - 1

    def symbols(self, values: Tensor) -> Tensor:
        """The inverse of ``values``."""
        return ((values.detach() + 1) * ((self.levels - 1) / 2)).round().long()

    def log_prob(self, raw: Tensor, symbols: Tensor, reference: Tensor | None = None) -> Tensor:
        """Log-probability of whole sites, without the distribution of each channel: the cheap way.

        Args:
            raw: ``(..., P)``.
            symbols: int64 ``(..., C)``.
            reference: ``(..., C, M)``, as in ``split``.

        Returns:
            ``(...)`` nats.
        """
        parameters = self.split(raw, reference)
        values = list(self.values(symbols, parameters.means.dtype).unbind(-1))
        nats = parameters.log_weights
        for channel in range(self.channels):
            nats = nats + discretized_logistic_log_prob(
                parameters.mean(channel, values),
                parameters.log_scales[..., channel, :],
                symbols[..., channel, None],
                self.levels,
            )
        return nats.logsumexp(-1)

    def logits(self, raw: Tensor, values: Tensor, reference: Tensor | None = None) -> Tensor:
        """The exact distribution of every channel given those before it, teacher-forced.

        Args:
            raw: ``(..., P)``.
            values: ``(..., C)`` in [-1, 1]; gradients flow to them through the means.
            reference: ``(..., C, M)``, as in ``split``.

        Returns:
            ``(..., C, K)`` normalised log-probabilities.
        """
        sites = max(1, ELEMENTS_AT_ONCE // (self.components * self.levels))
        parts = []
        raws, known_values = raw.flatten(0, -2).split(sites), values.flatten(0, -2).split(sites)
        references = [None] * len(raws) if reference is None else reference.flatten(0, -3).split(sites)
        for part, known, origin in zip(raws, known_values, references, strict=True):
            decoder = MixtureDecoder(self, part, origin)
            channels = []
            for value in known.unbind(-1):
                channels.append(decoder.logits())
                decoder.advance(value)
            parts.append(torch.stack(channels, -2))
        return torch.cat(parts).unflatten(0, raw.shape[:-1])


class MixtureDecoder:
    """Decodes the channels of a site one after the other, each given those before it.

    A channel's value is evidence for the component that it came from: the weights of the components for the
    next channel are their responsibilities for the channels so far,
    p(g | r) = Σ_m π_m p_m(r) p_m(g | r) / Σ_m π_m p_m(r).

    Args:
        mixture: The likelihood.
        raw: What the network gave, ``(..., P)``.
        reference: ``(..., C, M)``, as in ``LogisticMixture.split``.
    """

    def __init__(self, mixture: LogisticMixture, raw: Tensor, reference: Tensor | None = None) -> None:
        self.mixture = mixture
        self.parameters = mixture.split(raw, reference)
        self.log_weights = self.parameters.log_weights
        self.earlier: list[Tensor] = []
        self._components: Tensor | None = None

    def logits(self) -> Tensor:
        """Normalised log-probabilities ``(..., K)`` of the next channel."""
        if self._components is None:
            channel = len(self.earlier)
            self._components = every_level_log_prob(
                self.parameters.mean(channel, self.earlier),
                self.parameters.log_scales[..., channel, :],
                self.mixture.levels,
            )
        return (self._components + self.log_weights[..., None]).logsumexp(-2)

    def advance(self, values: Tensor) -> None:
        """Fix the next channel and go on: values ``(...)`` in [-1, 1]."""
        channel = len(self.earlier)
        if channel + 1 < self.mixture.channels:
            symbols = self.mixture.symbols(values)[..., None]
            if self._components is None:
                mean, log_scale = self.parameters.mean(channel, self.earlier), self.parameters.log_scales
                nats = discretized_logistic_log_prob(
                    mean, log_scale[..., channel, :], symbols, self.mixture.levels
                )
            else:
                index = symbols[..., None].expand(*self._components.shape[:-1], 1)
                nats = self._components.gather(-1, index)[..., 0]
            self.log_weights = (self.log_weights + nats).log_softmax(-1)
        self.earlier.append(values)
        self._components = None


def neighbours(left: Tensor, above: Tensor, above_left: Tensor, components: int) -> Tensor:
    """What relative means are relative to: by turns the pixel to the left, the one above, and the plane through both.

    Args:
        left: ``(...)``; 0 beyond the image's edge, as the others.
        above: ``(...)``.
        above_left: ``(...)``.
        components: M.

    Returns:
        ``(..., M)``.
    """
    choices = (left, above, (left + above - above_left).clamp(-1, 1))
    return torch.stack([choices[component % 3] for component in range(components)], -1)


def every_level_log_prob(mean: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """``discretized_logistic_log_prob`` of all K levels at once, at one sigmoid an edge between two levels.

    Args:
        mean: ``(...)``.
        log_scale: ``(...)``.
        levels: K.

    Returns:
        ``(..., K)`` nats.
    """
    log_scale = bounded_log_scale(log_scale)
    edges = upper_bin_edges(torch.arange(levels - 1, device=mean.device, dtype=mean.dtype), levels)
    edges = (edges - mean[..., None]) * torch.exp(-log_scale)[..., None]
    below = F.logsigmoid(edges)  # log σ(e)
    # log σ(-e), without a second sigmoid. It is a difference of near numbers only where it is near 0 and an
    # absolute error is what counts.
    above = below - edges
    width = bin_log_width(log_scale, levels)[..., None]
    inner = below[..., 1:] + above[..., :-1] + width
    return torch.cat([below[..., :1], inner, above[..., -1:]], -1)
