"""Metrics over a whole split: sums and counts, divided once."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor


@dataclass
class Means:
    """Means over a split of quantities that each item has.

    Example:
        >>> import torch
        >>> means = Means()
        >>> means.add(nll_nats=torch.tensor([1.0, 3.0]))
        >>> means.add(nll_nats=torch.tensor([5.0]))
        >>> means.mean("nll_nats"), round(means.standard_error("nll_nats"), 4)
        (3.0, 1.1547)
    """

    _sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, **values: Tensor) -> None:
        """Add one value for each item, as tensors ``(B,)`` by name."""
        for name, value in values.items():
            value = value.detach().double()
            sums = torch.stack([value.sum(), value.square().sum(), torch.ones_like(value).sum()])
            self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    def reduce(self, accelerator: Accelerator) -> None:
        """Add up the sums of all processes; all of them call this.

        Processes may have seen different quantities: one that got no item has none at all. They are exchanged by
        name, since a reduction of each would wait for ever for a process that lacks one.
        """
        if accelerator.num_processes == 1:
            return
        parts = gather_object([{name: sums.tolist() for name, sums in self._sums.items()}])
        self._sums = {
            name: torch.tensor([part[name] for part in parts if name in part], dtype=torch.float64).sum(0)
            for name in sorted({name for part in parts for name in part})
        }

    def count(self, name: str) -> int:
        """How many items were added."""
        return int(self._sums[name][2])

    def mean(self, name: str) -> float:
        """The mean over all items."""
        total, _, count = self._sums[name].tolist()
        return total / count

    def standard_error(self, name: str) -> float:
        """Standard error of the mean, from the sample variance; NaN for fewer than two items, or where one is NaN."""
        total, squares, count = self._sums[name].tolist()
        deviations = squares - total * total / count
        if count < 2 or not math.isfinite(deviations):
            return math.nan
        return math.sqrt(max(0.0, deviations) / (count - 1) / count)  # rounding alone takes it below 0


def psnr_db(mse: float, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error pooled over all images."""
    return math.inf if mse == 0 else 10 * math.log10(peak * peak / mse)


def histogram_entropy_nats(histogram: Tensor) -> float:
    """Entropy in nats of the distribution that counts ``(K,)`` give."""
    shares = histogram.double() / histogram.sum()
    return float(torch.special.entr(shares).sum())


def histograms_entropy_nats(histograms: Collection[Tensor]) -> float:
    """Entropy of what several histograms ``(K,)`` count, each by its own distribution: the mean over all counts."""
    total = sum(int(counts.sum()) for counts in histograms)
    nats = sum(histogram_entropy_nats(counts) * int(counts.sum()) for counts in histograms)
    return nats / total if total else math.nan


@dataclass(frozen=True)
class TextRates:
    """How well text was predicted, by two measures.

    Attributes:
        nats_per_token: Depends on the tokenizer: compare models of one tokenizer alone.
        bits_per_byte: Of UTF-8: compares models of any text tokenizers.
    """

    nats_per_token: float
    bits_per_byte: float


def text_rates(nll_nats: float, tokens: int, text_bytes: int) -> TextRates:
    """Both rates of some texts, summed over all of them before anything is divided.

    Args:
        nll_nats: Negative log-likelihood of all texts together, each text's end included.
        tokens: Of all texts, their ends included where a model predicts them.
        text_bytes: UTF-8 bytes of all texts; an end has none.

    Example:
        >>> text_rates(nll_nats=256 * math.log(2), tokens=32, text_bytes=128).bits_per_byte
        2.0
    """
    return TextRates(
        nll_nats / tokens if tokens else math.nan,
        nll_nats / (math.log(2) * text_bytes) if text_bytes else math.nan,
    )
