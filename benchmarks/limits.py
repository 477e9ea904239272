"""What the machine can do at most, measured in the same process, and the least time that sampling could take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from benchmarks.reporting import Cell
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.transformer import TransformerDecoder
from rasterwise.measure.flops import flop_counter
from rasterwise.measure.timing import seconds_of
from rasterwise.models.autoregressive import AutoregressiveModel


@dataclass(frozen=True)
class Peaks:
    """The most that a machine does a second, with the threads that torch has.

    Attributes:
        float32_flops: Of products of square float32 matrices.
        bf16_flops: Of the same in bf16.
        read_bytes: Of a sum over memory that no cache holds.
    """

    float32_flops: float
    bf16_flops: float
    read_bytes: float


@cache
def measured_peaks(device: torch.device) -> Peaks:
    """Those of this process, in about a second; measured once."""
    return Peaks(
        _product_flops(torch.float32, device),
        _product_flops(torch.bfloat16, device),
        read_bytes_per_second(device),
    )


@dataclass(frozen=True)
class LeastTime:
    """What drawing a batch cannot take less than in float32, each activation computed once.

    Attributes:
        arithmetic_seconds: Of the FLOPs of a teacher-forced pass, at the peak of large products.
        reading_seconds: Of the weights once a step, and of a transformer's keys and values, from memory. Weights that
            a cache of the processor holds can be read in less.
    """

    arithmetic_seconds: float
    reading_seconds: float

    @classmethod
    def of(cls, model: AutoregressiveModel, batch_size: int, peaks: Peaks) -> LeastTime:
        """For a batch that ``model.sample`` draws."""
        symbols = torch.zeros(1, *model.grid.shape, dtype=torch.int64, device=model.device)
        with torch.no_grad(), flop_counter() as counter:
            model(symbols)
        plan = SamplingPlan.of(model.grid, batch_size, batch_size=batch_size, device=model.device)
        decoder = model.sampling_decoder(plan)
        weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        read = weights * len(decoder.steps)
        if isinstance(decoder, TransformerDecoder):  # at the n-th of N positions, n of N parts of the cache
            read += decoder.cache.memory.nbytes * (model.grid.size + 1) // 2
        return cls(counter.get_total_flops() * batch_size / peaks.float32_flops, read / peaks.read_bytes)

    @property
    def seconds(self) -> float:
        """Both at once, the longer one hiding the other."""
        return max(self.arithmetic_seconds, self.reading_seconds)


def peaks_note(cells: Sequence[Cell]) -> str:
    """A line of the peaks that were measured beside some cells: the least and the most."""
    parts = []
    for name, what, unit in (
        ("float32_flops", "float32 products", "GFLOP/s"),
        ("bf16_flops", "bf16 products", "GFLOP/s"),
        ("read_bytes", "reads of memory", "GB/s"),
    ):
        rates = [cell["peaks"][name] / 1e9 for cell in cells]
        parts.append(f"{what} {min(rates):,.0f} to {max(rates):,.0f} {unit}")
    return f"Peaks in the same processes: {', '.join(parts)}."


def read_bytes_per_second(device: torch.device | str = "cpu") -> float:
    """How fast memory that no cache holds is read: a sum over 512 MB, the best of five."""
    numbers = torch.ones(128 * 1024**2, device=device)
    return numbers.nbytes / min(seconds_of(numbers.sum, numbers.device) for _ in range(5))


def _product_flops(dtype: torch.dtype, device: torch.device) -> float:
    """The best rate of ever larger products, until one takes 50 ms: a processor without the type takes seconds."""
    best, size, seconds = 0.0, 256, 0.0
    while seconds < 0.05 and size <= 8192:
        matrix = torch.ones(size, size, dtype=dtype, device=device)
        seconds = min(seconds_of(lambda matrix=matrix: matrix @ matrix, device) for _ in range(3))  # type: ignore[misc]
        best, size = max(best, 2 * size**3 / seconds), 2 * size
    return best
