"""The masked-convolution and the recurrent models compared at equal width, depth and training time."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.reporting import BenchmarkFile, Cell, command_status, markdown_table
from pixel_baselines import (
    DiagonalBiLSTM,
    DiagonalBiLSTMConfig,
    GatedPixelCNN,
    GatedPixelCNNConfig,
    PixelCNN,
    PixelCNNConfig,
    RowLSTM,
    RowLSTMConfig,
)
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.splits import Batch
from rasterwise.errors import InputError
from rasterwise.measure.timing import in_fresh_process, median, seconds_of
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.progress import Progress
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.autoregressive import images_task
from rasterwise.training.config import TrainingConfig
from rasterwise.training.likelihood import LikelihoodObjective
from rasterwise.training.loop import train
from rasterwise.training.run.run_folder import RunFolder
from rasterwise.training.step import TrainingStep

LikeName = Literal["pixelcnn", "gated-pixelcnn", "row-lstm", "diagonal-bilstm"]

NAMES: dict[LikeName, str] = {
    "pixelcnn": "PixelCNN",
    "gated-pixelcnn": "Gated PixelCNN",
    "row-lstm": "Row LSTM",
    "diagonal-bilstm": "Diagonal BiLSTM",
}


@dataclass(frozen=True)
class EqualTimeBenchmark:
    """Train PixelCNN, Gated PixelCNN and both PixelRNNs for an equal time on dynamic MNIST; print a Markdown table.

    First, training steps of all models are timed, interleaved in one process. Each model is then trained for as
    many of its median steps as the time allows, so that other load on the machine changes how long that takes,
    but not the result.

    Attributes:
        dataset: The images: a folder or a Hugging Face dataset id.
        models: The models.
        width: Features between the layers; of each stack in Gated PixelCNN.
        depth: Layers, or residual blocks.
        minutes: Training time of each model, without evaluation.
        batch_size: Images a step.
        learning_rate: The highest learning rate.
        precision: fp32, or bf16 autocast.
        timed_steps: Timed steps of each model.
        threads: CPU threads of torch; 0 for torch's own choice.
        runs: Folder of the trainings; those that it holds are resumed, or not repeated if they have ended.
        output: The JSON file, updated after every model.
        force: Replace the file if it is there.
        json: Print the whole JSON in place of the table.
    """

    dataset: str
    models: tuple[LikeName, ...] = tuple(NAMES)
    width: int = 32
    depth: int = 6
    minutes: float = 5.0
    batch_size: int = 32
    learning_rate: float = 2e-3
    precision: Literal["fp32", "bf16"] = "bf16"
    timed_steps: int = 7
    threads: int = 2
    runs: Path = Path("runs/equal-time")
    output: Path = Path("runs/benchmarks/equal-time.json")
    force: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if not self.models or self.minutes <= 0 or self.timed_steps < 1 or self.threads < 0:
            raise InputError(
                f"asked for models {self.models}, {self.minutes} minutes, {self.timed_steps} timed steps and "
                f"{self.threads} threads, expected at least one model, a time, 1 and 0 or more"
            )


def benchmark_equal_time(options: EqualTimeBenchmark) -> dict[str, Any]:
    """Run the command; returns its report."""
    file = BenchmarkFile(options.output, "equal-time", options, torch.device("cpu"), options.force)
    with Progress("reading images", "image") as progress:
        shape = open_images(DataConfig(dataset=options.dataset), progress).shape
    step_seconds = in_fresh_process(options.threads, time_steps, shape, options)
    planned = [
        (
            {"model": name, "label": NAMES[name]},
            partial(in_fresh_process, options.threads, train_model, name, step_seconds[name], options),
        )
        for name in options.models
    ]
    file.run(planned)
    return file.report(table, as_json=options.json)


def build(name: LikeName, grid: Grid, options: EqualTimeBenchmark) -> AutoregressiveModel:
    """A model of the stated width and depth."""
    torch.manual_seed(0)
    width, depth = options.width, options.depth
    if name == "pixelcnn":
        return PixelCNN(PixelCNNConfig(grid=grid, width=width, blocks=depth, output_width=width))
    if name == "gated-pixelcnn":
        return GatedPixelCNN(GatedPixelCNNConfig(grid=grid, width=width, depth=depth, output_width=width))
    if name == "row-lstm":
        return RowLSTM(RowLSTMConfig(grid=grid, width=width, depth=depth, output_width=width))
    return DiagonalBiLSTM(DiagonalBiLSTMConfig(grid=grid, width=width, depth=depth, output_width=width))


def time_steps(shape: tuple[int, int, int], options: EqualTimeBenchmark) -> dict[LikeName, list[float]]:
    """Seconds of training steps of every model, interleaved."""
    tokenizer = PixelTokenizer(PixelTokenizerConfig(levels=2, dynamic=True))
    grid, device = tokenizer.grid(*shape), torch.device("cpu")
    batch = Batch(torch.randint(256, (options.batch_size, *shape), dtype=torch.uint8))

    training = TrainingConfig(batch_size=options.batch_size, precision=options.precision, device="cpu")
    accelerator = start_accelerator(training)

    def stepper(name: LikeName) -> Callable[[], object]:
        objective = LikelihoodObjective(build(name, grid, options), tokenizer)
        train_step = TrainingStep(objective, training, accelerator)
        return lambda: train_step(batch, 0)

    steps = {name: stepper(name) for name in options.models}
    seconds: dict[LikeName, list[float]] = {name: [] for name in options.models}
    for number in range(options.timed_steps + 2):  # the first two warm up
        for name, step in steps.items():
            taken = seconds_of(step, device)
            if number >= 2:
                seconds[name].append(taken)
    return seconds


def train_model(name: LikeName, step_seconds: list[float], options: EqualTimeBenchmark) -> Cell:
    """Train a model for as many steps as fit into the time, and evaluate it."""
    with Progress("reading images", "image") as progress:
        images: ImageData = open_images(DataConfig(dataset=options.dataset), progress)
    tokenizer = PixelTokenizer(PixelTokenizerConfig(levels=2, dynamic=True))
    model = build(name, tokenizer.grid(*images.shape), options)
    steps = max(1, round(options.minutes * 60 / median(step_seconds)))
    training = TrainingConfig(
        steps=steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        precision=options.precision,
        evaluate_every=steps,
        save_every=max(1, steps // 4),
        device="cpu",
    )
    accelerator = start_accelerator(training)
    run = RunFolder.claim(options.runs / name, f"equal-time {name}", options)
    task = images_task(model, tokenizer, images, label_dropout=0.0)
    report = run.report or dataclasses.asdict(train(task, training, run, accelerator))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "step_seconds": step_seconds,
        "images_per_second": options.batch_size / median(step_seconds),
        "steps": steps,
        "images": steps * options.batch_size,
        "test": report["test"],
    }


def table(cells: Sequence[Cell]) -> str:
    """The cells as Markdown with a row for each model; then what failed."""
    heads = ["model", "parameters", "images/s", "images in the time", "test nats", "standard error"]
    rows: list[list[object]] = [
        [
            cell["label"],
            cell["parameters"],
            cell["images_per_second"],
            cell["images"],
            f"{cell['test']['nll_nats']:.2f}",
            f"{cell['test']['nll_nats_standard_error']:.2f}",
        ]
        for cell in cells
        if "error" not in cell
    ]
    failed = [f"{cell['label']}: {cell['error']}" for cell in cells if "error" in cell]
    return "\n\n".join([markdown_table(heads, rows), *failed])


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command; status 1 where a model failed."""
    return command_status(benchmark_equal_time, EqualTimeBenchmark, arguments, program)


if __name__ == "__main__":
    sys.exit(main(program="python -m benchmarks.equal_time"))
