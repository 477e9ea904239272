"""How fast the models train, and what share of the machine's arithmetic they use."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.loop import LoopTimes, measure_loop
from benchmarks.models import MODELS, TRAINED, Benchmarked, ModelName, Size
from benchmarks.reporting import BenchmarkFile, Cell, command_status, markdown_table
from rasterwise.data.indexed import tensor_split
from rasterwise.errors import InputError
from rasterwise.measure.timing import DeviceChoice, chosen_device, in_fresh_process, median, seconds_of
from rasterwise.progress import Progress
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.dry_run import costs_of
from rasterwise.training.step import TrainingStep

Precision = Literal["fp32", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TrainingBenchmark:
    """Time training steps of every model; print a Markdown table and write JSON.

    A step is the one that every training takes: forward, backward, clipping, the check for finite values, AdamW and
    averaged weights. As many rounds of the training loop are timed as well, each after a step alone:
    `loop_overhead` is the share of a round that is not in its step (data, metrics, progress).

    Each model is measured in a process of its own, with its precisions interleaved: a step in each, then a
    convolution in each, whose best FLOP/s are the peak to compare with.

    Attributes:
        models: The models.
        batch_size: Images a step.
        precisions: fp32, and bf16 autocast.
        compile: Measure each precision under torch.compile as well.
        steps: Timed steps in each precision, of which the median is reported.
        warmup_steps: Untimed steps before; the first initialises PixelCNN++'s gains and the VQ-VAE's codebook.
        threads: CPU threads of torch; 0 for torch's own choice.
        size: stated, or tiny to check that the benchmark works: its figures mean nothing.
        device: auto uses a GPU where there is one.
        output: The JSON file, updated after every model: a stopped benchmark keeps what it has.
        force: Replace the file if it is there.
        json: Print the whole JSON in place of the table.
    """

    models: tuple[ModelName, ...] = TRAINED
    batch_size: int = 64
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    compile: bool = False
    steps: int = 5
    warmup_steps: int = 2
    threads: int = 2
    size: Size = "stated"
    device: DeviceChoice = "auto"
    output: Path = Path("runs/benchmarks/training.json")
    force: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if not self.models or not self.precisions:
            raise InputError(
                f"asked for models {self.models} in {self.precisions}, expected at least one of each"
            )
        for name, least in (("batch_size", 1), ("steps", 1), ("warmup_steps", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, expected {least} or more")


def benchmark_training(options: TrainingBenchmark) -> dict[str, Any]:
    """Run the command; returns its report."""
    file = BenchmarkFile(options.output, "training", options, chosen_device(options.device), options.force)
    planned: list[tuple[Cell, Callable[[], Cell]]] = []
    for name in options.models:
        subject = {"model": name, "label": MODELS[name].label(options.size), "batch_size": options.batch_size}
        planned.append((subject, partial(in_fresh_process, options.threads, measure_model, name, options)))
    file.run(planned)
    return file.report(table, as_json=options.json)


class Variant:
    """A model that is trained in one precision, eagerly or compiled.

    Args:
        benchmarked: The model.
        precision: fp32, or bf16 autocast.
        compiled: Whether it runs under torch.compile.
        options: The command's options.
        device: The device to train on.
    """

    def __init__(
        self,
        benchmarked: Benchmarked,
        precision: Precision,
        compiled: bool,
        options: TrainingBenchmark,
        device: torch.device,
    ) -> None:
        self.precision: Precision = precision
        self.compiled, self.device = compiled, device
        self.benchmarked, self.options = benchmarked, options
        model = benchmarked.build(options.size, device)
        self.model_config = model.config
        self.parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.training = TrainingConfig(
            batch_size=options.batch_size,
            learning_rate=1e-4,
            precision=precision,
            compile=compiled,
            device="cpu" if device.type == "cpu" else "auto",
        )
        self.objective = benchmarked.objective(model)
        self.accelerator = start_accelerator(self.training)
        self._step = TrainingStep(self.objective, self.training, self.accelerator)
        self.batch = benchmarked.batch(options.size, options.batch_size, device)
        self.step_seconds: list[float] = []

    @property
    def name(self) -> str:
        """The precision, with "-compiled" if it is."""
        return f"{self.precision}-compiled" if self.compiled else self.precision

    def step(self) -> None:
        """One training step, at the full learning rate."""
        self._step(self.batch, self.training.warmup_steps)

    def loop(self) -> LoopTimes:
        """Times of the training loop, and of this variant's steps between its rounds."""
        options, model = self.options, self.benchmarked.build(self.options.size, self.device)
        data = self.benchmarked.batch(options.size, 2 * options.batch_size, torch.device("cpu"))
        steps = options.warmup_steps + options.steps + 1  # the last one is not timed
        return measure_loop(
            self.benchmarked.objective(model),
            tensor_split(data.values),
            self.step,
            dataclasses.replace(self.training, steps=steps, evaluate_every=steps),
            warmup_steps=options.warmup_steps,
        )

    def flops_a_step(self) -> int:
        """FLOPs of a step, forward and backward."""
        return costs_of(self.objective, self.batch, self.accelerator).flops


@dataclass(frozen=True)
class Convolution:
    """A 3×3 convolution with as many output as input channels, whose speed counts as the machine's peak.

    Attributes:
        batch_size: Feature maps.
        channels: Channels of a map.
        side: Rows and columns of a map.
        passes: Convolutions in one timing: enough to make the cost of launching them negligible.
    """

    batch_size: int
    channels: int
    side: int
    passes: int

    @property
    def flops(self) -> int:
        """FLOPs of all passes, as the FLOP counter counts them: on the padding too."""
        return 2 * 9 * self.channels**2 * self.side**2 * self.batch_size * self.passes

    def work(self, precision: Precision, device: torch.device) -> Callable[[], object]:
        """A function that runs the convolution, channels-last, in a precision."""
        shape = (self.batch_size, self.channels, self.side, self.side)
        kernel = torch.randn(self.channels, self.channels, 3, 3).to(device, DTYPES[precision])
        maps = torch.randn(shape).to(device, DTYPES[precision])
        kernel, maps = (x.contiguous(memory_format=torch.channels_last) for x in (kernel, maps))
        return lambda: self._run(maps, kernel)

    def _run(self, maps: Tensor, kernel: Tensor) -> None:
        with torch.no_grad():
            for _ in range(self.passes):
                F.conv2d(maps, kernel, padding=1)


def peak_convolutions(device: torch.device, size: Size) -> tuple[Convolution, ...]:
    """Convolutions at which a device of this kind reaches its highest FLOP/s."""
    if size == "tiny":
        return (Convolution(2, 16, 8, passes=1),)
    if device.type == "cuda":
        return Convolution(256, 512, 28, passes=10), Convolution(256, 256, 56, passes=10)
    return Convolution(64, 128, 28, passes=1), Convolution(16, 256, 28, passes=1)


def measure_model(name: ModelName, options: TrainingBenchmark) -> Cell:
    """Measure one model in every precision, in this process.

    Returns:
        The model's figures: ``variants`` by precision, and the ``convolutions`` to compare them with.
    """
    device = chosen_device(options.device)
    variants = [
        Variant(MODELS[name], precision, compiled, options, device)
        for compiled in ((False, True) if options.compile else (False,))
        for precision in options.precisions
    ]
    convolutions = [
        (convolution, precision, convolution.work(precision, device), list[float]())
        for convolution in peak_convolutions(device, options.size)
        for precision in DTYPES
    ]
    failed: dict[str, str] = {}
    with Progress(name) as progress:
        for variant in variants:
            try:
                for _ in range(options.warmup_steps):
                    variant.step()
            except Exception as error:
                if not variant.compiled:
                    raise
                # A model that torch.compile fails on still has its eager figures.
                failed[variant.name] = f"{type(error).__name__}: {error}"
        flops = variants[0].flops_a_step()
        for _, _, work, _ in convolutions:
            work()
        for number in range(options.steps):
            for variant in variants:
                if variant.name not in failed:
                    variant.step_seconds.append(seconds_of(variant.step, device))
            for _, _, work, seconds in convolutions:
                seconds.append(seconds_of(work, device))
            said = ", ".join(f"{v.name} {v.step_seconds[-1]:.3g}" for v in variants if v.step_seconds)
            progress.line(f"  step {number + 1}/{options.steps}: seconds {said}")
    loops = {variant.name: variant.loop() for variant in variants if variant.name not in failed}
    peaks: dict[str, float] = {}
    for convolution, precision, _, seconds in convolutions:
        peaks[precision] = max(peaks.get(precision, 0.0), convolution.flops / min(seconds))
    return {
        "size": options.size,
        "config": dataclasses.asdict(variants[0].model_config),
        "parameters": variants[0].parameters,
        "flops_a_step": flops,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "convolution_peak_flops_per_second": peaks,
        "variants": {
            variant.name: {"error": failed[variant.name]}
            if variant.name in failed
            else {
                **figures(variant.step_seconds, variant.precision, options.batch_size, flops, peaks),
                **loops[variant.name].figures(),
            }
            for variant in variants
        },
        "convolutions": [
            {**dataclasses.asdict(convolution), "precision": precision, "seconds": seconds}
            for convolution, precision, _, seconds in convolutions
        ],
    }


def figures(
    step_seconds: Sequence[float],
    precision: Precision,
    batch_size: int,
    flops: int,
    peaks: dict[str, float],
) -> Cell:
    """A variant's figures from its step times; the shares are of the convolutions' peaks."""
    seconds = median(step_seconds)
    achieved = flops / seconds
    return {
        "step_seconds_median": seconds,
        "images_per_second": batch_size / seconds,
        "achieved_flops_per_second": achieved,
        "share_of_peak_in_its_precision": achieved / peaks[precision],
        "share_of_bf16_peak": achieved / peaks["bf16"],
        "step_seconds": list(step_seconds),
    }


def table(cells: Sequence[Cell]) -> str:
    """The cells as Markdown with a row for each variant; then what failed, and the peaks."""
    heads = ["model", "precision", "parameters", "images/s", "step s", "GFLOP a step", "GFLOP/s"]
    heads += ["÷ convolution's peak", "÷ bf16 convolution's peak", "loop's overhead"]
    rows: list[list[object]] = []
    notes: list[str] = []
    for cell in cells:
        if "error" in cell:
            notes.append(f"{cell['label']}: {cell['error']}")
            continue
        for name, variant in cell["variants"].items():
            if "error" in variant:
                notes.append(f"{cell['label']}, {name}: {variant['error'].splitlines()[0]}")
                continue
            row = [cell["label"], name, cell["parameters"], variant["images_per_second"]]
            row += [variant["step_seconds_median"], cell["flops_a_step"] / 1e9]
            row += [variant["achieved_flops_per_second"] / 1e9]
            row += [variant["share_of_peak_in_its_precision"], variant["share_of_bf16_peak"]]
            rows.append([*row, f"{variant['loop_overhead']:.1%}"])
    for precision in DTYPES:
        peaks = [cell["convolution_peak_flops_per_second"][precision] for cell in cells if "variants" in cell]
        if peaks:
            least, most = min(peaks) / 1e9, max(peaks) / 1e9
            notes.append(f"Peak of a {precision} convolution: {least:,.0f} to {most:,.0f} GFLOP/s.")
    return "\n\n".join([markdown_table(heads, rows), *notes])


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command; status 1 where a model failed."""
    return command_status(benchmark_training, TrainingBenchmark, arguments, program)


if __name__ == "__main__":
    sys.exit(main(program="python -m benchmarks.training"))
