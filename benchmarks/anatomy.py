"""What the time of a sampled symbol is made of, and the least that it could take."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.limits import read_bytes_per_second
from benchmarks.models import MODELS, SAMPLED, SampledName, Size
from benchmarks.reporting import BenchmarkFile, Cell, command_status, markdown_table
from benchmarks.sampling import draw_until, steps
from rasterwise.decoding.sampling import Sampling, draw
from rasterwise.errors import InputError
from rasterwise.measure.timing import in_fresh_process, median, seconds_of
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import evaluating

CPU = torch.device("cpu")
MATRIX_PRODUCTS = {"aten::mm", "aten::addmm", "aten::addmm_", "mkldnn::_linear_pointwise"}
BATCHED_PRODUCTS = {"aten::bmm", "aten::baddbmm", "aten::baddbmm_"}


@dataclass(frozen=True)
class AnatomyBenchmark:
    """Profile some rows in the middle of cached decoding on a CPU; print a Markdown table and write JSON.

    The shares are of the profiler's self times; the milliseconds are of the same rows without the profiler.

    Attributes:
        models: Which.
        batch_size: Images sampled at once.
        rows: How many rows are profiled.
        threads: CPU threads of torch; 0 for torch's own choice.
        size: stated, or tiny to see that the benchmark works: its figures mean nothing.
        output: The JSON file, written as the benchmark goes.
        force: Replace the file if it is there.
        json: Print the whole JSON in place of the table.
    """

    models: tuple[SampledName, ...] = SAMPLED
    batch_size: int = 16
    rows: int = 2
    threads: int = 2
    size: Size = "stated"
    output: Path = Path("runs/benchmarks/anatomy.json")
    force: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if not self.models or self.batch_size < 1 or self.rows < 1 or self.threads < 0:
            raise InputError(
                f"asked for models {self.models}, batches of {self.batch_size}, {self.rows} rows and "
                f"{self.threads} threads, expected at least one of each (0 threads: torch's choice)"
            )


def benchmark_anatomy(options: AnatomyBenchmark) -> dict[str, Any]:
    """Run the command; returns its report."""
    file = BenchmarkFile(options.output, "anatomy", options, CPU, options.force)
    file.run(
        [
            (
                {"model": name, "label": MODELS[name].label(options.size)},
                partial(in_fresh_process, options.threads, measure_anatomy, name, options),
            )
            for name in options.models
        ]
    )
    return file.report(table, as_json=options.json)


def measure_anatomy(name: SampledName, options: AnatomyBenchmark) -> Cell:
    """Profile the decoding of one model; in this process."""
    model = cast(AutoregressiveModel, MODELS[name].build(options.size, CPU)).eval()
    grid, row = model.grid, model.grid.width * model.grid.channels
    symbols = torch.randint(grid.levels, (options.batch_size, *grid.shape))
    rows = min(options.rows, grid.height - grid.height // 2)
    with evaluating(model), torch.no_grad():
        score_seconds = median([seconds_of(lambda: model.log_prob(symbols), CPU) for _ in range(3)])
        decoding = steps(model, options.batch_size)
        began = draw_until(decoding, row * (grid.height // 2))
        ended: list[int] = []
        seconds = seconds_of(lambda: ended.append(draw_until(decoding, began + row * rows)), CPU)
        symbols_drawn = ended[0] - began
        decoding = steps(model, options.batch_size)
        draw_until(decoding, began)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            draw_until(decoding, began + row * rows)
    kinds: dict[str, float] = {}
    operations = 0
    for event in profiler.key_averages():
        if not event.key.startswith(("aten::", "mkldnn::", "mkl::")):
            continue
        kinds[kind_of(event.key)] = kinds.get(kind_of(event.key), 0.0) + event.self_cpu_time_total
        operations += event.count
    in_all = sum(kinds.values())
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return {
        "batch_size": options.batch_size,
        "threads": torch.get_num_threads(),
        "symbols_an_image": grid.size,
        "score_seconds_a_symbol": score_seconds / grid.size,
        "sample_seconds_a_symbol": seconds / symbols_drawn,
        "draw_seconds_a_symbol": draw_seconds(grid.levels, options.batch_size),
        "operations_a_symbol": operations / symbols_drawn,
        "share_of_time": {kind: time / in_all for kind, time in kinds.items()},
        "weight_bytes": weights,
        "read_bytes_per_second": read_bytes_per_second(),
    }


def kind_of(operation: str) -> str:
    """The kind of work that an operation of torch's is."""
    if operation in MATRIX_PRODUCTS:
        return "matrix products"
    if operation in BATCHED_PRODUCTS:
        return "batched products"
    return "everything else"


def draw_seconds(levels: int, batch_size: int) -> float:
    """What drawing a symbol from logits takes, without the network."""
    logits, uniform = torch.randn(batch_size, levels), torch.rand(batch_size, dtype=torch.float64)

    def draws() -> None:
        for _ in range(200):
            draw(Sampling().probabilities(logits), uniform)

    return median([seconds_of(draws, CPU) for _ in range(5)]) / 200


def table(cells: Sequence[Cell]) -> str:
    """The cells as Markdown, a row a model; then what failed."""
    kinds = ("matrix products", "batched products", "everything else")
    heads = ["model", "score µs a symbol", "sample µs", "÷", "drawing µs", "operations a symbol"]
    heads += [*kinds, "reading all weights µs"]
    rows: list[list[object]] = []
    for cell in cells:
        if "error" in cell:
            continue
        score, sample = cell["score_seconds_a_symbol"], cell["sample_seconds_a_symbol"]
        row: list[object] = [cell["label"], score * 1e6, sample * 1e6, sample / score]
        row += [cell["draw_seconds_a_symbol"] * 1e6, cell["operations_a_symbol"]]
        row += [f"{cell['share_of_time'].get(kind, 0.0):.0%}" for kind in kinds]
        rows.append([*row, cell["weight_bytes"] / cell["read_bytes_per_second"] * 1e6])
    failed = [f"{cell['label']}: {cell['error']}" for cell in cells if "error" in cell]
    return "\n\n".join([markdown_table(heads, rows), *failed])


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command; status 1 where a model failed."""
    return command_status(benchmark_anatomy, AnatomyBenchmark, arguments, program)


if __name__ == "__main__":
    sys.exit(main(program="python -m benchmarks.anatomy"))
