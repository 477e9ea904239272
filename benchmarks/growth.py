"""How the cost of sampling grows with the number of rows of an image."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from benchmarks.models import MODELS, SAMPLED, SampledName, Size
from benchmarks.reporting import BenchmarkFile, Cell, command_status, markdown_table
from benchmarks.sampling import draw_until, steps
from rasterwise.errors import InputError
from rasterwise.measure.figures import new_figure, save_figure
from rasterwise.measure.timing import DeviceChoice, chosen_device, in_fresh_process, median, seconds_of
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import evaluating


@dataclass(frozen=True)
class GrowthBenchmark:
    """Time cached sampling on grids of more and more rows; print a Markdown table, write JSON and a plot.

    Attributes:
        models: Which.
        heights: Rows of the grids; they are as wide as the model's stated grid.
        batch_size: Images sampled at once.
        repeats: How often each is timed, one height after the other.
        threads: CPU threads of torch; 0 for torch's own choice.
        size: stated, or tiny to see that the benchmark works: its figures mean nothing.
        device: auto takes a GPU where there is one.
        plot: A .png of seconds against symbols, both logarithmic; by default none. It needs the extra "plots".
        output: The JSON file, written as the benchmark goes.
        force: Replace the file if it is there.
        json: Print the whole JSON in place of the table.
    """

    models: tuple[SampledName, ...] = (
        "gated-pixelcnn",
        "pixelcnn",
        "row-lstm",
        "diagonal-bilstm",
        "image-gpt",
    )
    heights: tuple[int, ...] = (7, 14, 28, 56)
    batch_size: int = 16
    repeats: int = 3
    threads: int = 2
    size: Size = "stated"
    device: DeviceChoice = "auto"
    plot: Path | None = None
    output: Path = Path("runs/benchmarks/growth.json")
    force: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if (
            not self.models
            or not set(self.models) <= set(SAMPLED)
            or len(self.heights) < 2
            or min(self.heights) < 2
        ):
            raise InputError(
                f"asked for heights {self.heights} of models {self.models}, expected two heights of 2 or more "
                f"and models among {', '.join(SAMPLED)}"
            )
        if self.repeats < 1 or self.batch_size < 1 or self.threads < 0:
            raise InputError(
                f"asked for {self.repeats} repeats, batches of {self.batch_size} and {self.threads} threads, "
                "expected 1, 1 and 0 or more"
            )
        if self.plot is not None and self.plot.suffix != ".png":
            raise InputError(f"plot {self.plot} is no .png name")


def benchmark_growth(options: GrowthBenchmark) -> dict[str, Any]:
    """Run the command; returns its report."""
    file = BenchmarkFile(options.output, "growth", options, chosen_device(options.device), options.force)
    planned: list[tuple[Cell, Callable[[], Cell]]] = [
        (
            {"model": name, "label": MODELS[name].label(options.size)},
            partial(in_fresh_process, options.threads, measure_growth, name, options),
        )
        for name in options.models
    ]
    file.run(planned)
    if options.plot is not None:
        save_plot([cell for cell in file.cells if "error" not in cell], options.plot)
    return file.report(table, as_json=options.json)


def measure_growth(name: SampledName, options: GrowthBenchmark) -> Cell:
    """Measure one model at every height; in this process."""
    device, config = chosen_device(options.device), MODELS[name].config(options.size)
    models: dict[int, AutoregressiveModel] = {}
    for height in options.heights:
        torch.manual_seed(0)
        grown = dataclasses.replace(config, grid=dataclasses.replace(config.grid, height=height))
        models[height] = cast(AutoregressiveModel, MODELS[name].model_class(grown)).to(device).eval()
    seconds: dict[int, list[float]] = {height: [] for height in options.heights}
    with torch.no_grad():
        for model in models.values():
            with evaluating(model):
                draw_until(steps(model, options.batch_size), model.grid.width * model.grid.channels)
        for _ in range(options.repeats):
            for height, model in models.items():
                draw = partial(model.sample, options.batch_size, batch_size=options.batch_size)
                seconds[height].append(seconds_of(draw, device))
    symbols = [model.grid.size for model in models.values()]
    medians = [median(taken) for taken in seconds.values()]
    return {
        "heights": list(options.heights),
        "symbols": symbols,
        "sample_seconds": list(seconds.values()),
        "sample_seconds_median": medians,
        "exponent": float(np.polyfit(np.log(symbols), np.log(medians), 1)[0]),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def table(cells: Sequence[Cell]) -> str:
    """The cells as Markdown: milliseconds a symbol at each height, and the exponent of the growth."""
    measured = [cell for cell in cells if "error" not in cell]
    heights = measured[0]["heights"] if measured else []
    heads = ["model", *(f"ms a symbol, {height} rows" for height in heights), "exponent"]
    rows = [
        [
            cell["label"],
            *(
                1000 * seconds / symbols
                for seconds, symbols in zip(cell["sample_seconds_median"], cell["symbols"], strict=True)
            ),
            f"{cell['exponent']:.2f}",
        ]
        for cell in measured
    ]
    failed = [f"{cell['label']}: {cell['error']}" for cell in cells if "error" in cell]
    return "\n\n".join([markdown_table(heads, rows), *failed])


def save_plot(cells: Sequence[Cell], path: Path) -> None:
    """Plot seconds against symbols, and a line of exponent 1.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = new_figure(7, 5)
    axes = figure.subplots()
    for cell in cells:
        label = f"{cell['label']} (exponent {cell['exponent']:.2f})"
        axes.loglog(cell["symbols"], cell["sample_seconds_median"], marker="o", label=label)
    symbols = np.array(cells[0]["symbols"])
    least = min(cell["sample_seconds_median"][0] / cell["symbols"][0] for cell in cells) / 2
    axes.loglog(symbols, least * symbols, linestyle="--", color="grey", label="exponent 1")
    axes.set_xlabel("symbols an image")
    axes.set_ylabel("seconds to sample a batch")
    axes.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1.01))
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command; status 1 where a model failed."""
    return command_status(benchmark_growth, GrowthBenchmark, arguments, program)


if __name__ == "__main__":
    sys.exit(main(program="python -m benchmarks.growth"))
