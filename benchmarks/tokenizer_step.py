"""What a training step of a learned tokenizer costs: the squared error alone, and with each further loss."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.reporting import BenchmarkFile, Cell, command_status, markdown_table
from rasterwise.data.splits import Batch
from rasterwise.errors import InputError
from rasterwise.measure.timing import in_fresh_process, median
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.step import TrainingStep
from stage1_vqvae import VQVAE, ConvolutionalConfig, L2QuantizerConfig, VQVAEConfig
from stage1_vqvae.losses.adversarial import AdversarialConfig
from stage1_vqvae.losses.perceptual import PerceptualConfig
from stage1_vqvae.objective import LearnedTokenizerObjective

CPU = torch.device("cpu")
PERCEPTUAL, ADVERSARIAL = "perceptual", "adversarial"
LOSSES: dict[str, tuple[str, ...]] = {
    "squared error": (),
    "and perceptual": (PERCEPTUAL,),
    "and adversarial": (ADVERSARIAL,),
    "VQGAN: both": (PERCEPTUAL, ADVERSARIAL),
}


@dataclass(frozen=True)
class TokenizerStepBenchmark:
    """Time training steps on a CPU with and without the further losses; print a Markdown table and write JSON.

    All objectives take turns in one process, so that what else the machine does meets all of them alike.

    Attributes:
        batch_size: Images a step, of random pixels.
        side: Height and width of the images.
        width: Of the convolutional autoencoder.
        perceptual_side: See ``PerceptualConfig``.
        discriminator_width: See ``AdversarialConfig``.
        steps: How many of each objective are timed, after one that is not.
        threads: CPU threads of torch; 0 for torch's own choice.
        output: The JSON file.
        force: Replace the file if it is there.
        json: Print the whole JSON in place of the table.
    """

    batch_size: int = 16
    side: int = 64
    width: int = 32
    perceptual_side: int = 64
    discriminator_width: int = 16
    steps: int = 10
    threads: int = 1
    output: Path = Path("runs/benchmarks/tokenizer-step.json")
    force: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if min(self.batch_size, self.steps) < 1 or self.threads < 0:
            raise InputError(
                f"asked for batches of {self.batch_size}, {self.steps} steps and {self.threads} threads, expected "
                "at least one of each (0 threads: torch's choice)"
            )


def benchmark_tokenizer_step(options: TokenizerStepBenchmark) -> dict[str, Any]:
    """Run the command."""
    file = BenchmarkFile(options.output, "tokenizer step", options, CPU, options.force)
    measure = partial(in_fresh_process, options.threads, measure_steps, options)
    file.run([({"label": f"{options.side}×{options.side}, batch {options.batch_size}"}, measure)])
    return file.report(table, as_json=options.json)


def measure_steps(options: TokenizerStepBenchmark) -> Cell:
    """Median seconds of a step of each objective, on the clock and of the processor."""
    images = torch.randint(256, (options.batch_size, 3, options.side, options.side), dtype=torch.uint8)
    steps = {name: _step(parts, options) for name, parts in LOSSES.items()}
    clock: dict[str, list[float]] = {name: [] for name in steps}
    processor: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.steps + 1):
        for name, step in steps.items():
            began, worked = time.perf_counter(), time.process_time()
            step(Batch(images), number)
            if number:
                clock[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - worked)
    return {
        "seconds": {name: median(found) for name, found in clock.items()},
        "processor_seconds": {name: median(found) for name, found in processor.items()},
    }


def _step(parts: tuple[str, ...], options: TokenizerStepBenchmark) -> TrainingStep:
    torch.manual_seed(0)
    autoencoder = ConvolutionalConfig(width=options.width)
    config = VQVAEConfig(channels=3, quantizer=L2QuantizerConfig(codebook_size=512), autoencoder=autoencoder)
    perceptual = PerceptualConfig(
        perceptual_weight=float(PERCEPTUAL in parts), perceptual_side=options.perceptual_side
    )
    adversarial = AdversarialConfig(
        adversarial_weight=float(ADVERSARIAL in parts),
        adversarial_start=0,
        discriminator_width=options.discriminator_width,
        discriminator_layers=2,
    )
    training = TrainingConfig(batch_size=options.batch_size, device="cpu")
    objective = LearnedTokenizerObjective(VQVAE(config), perceptual, adversarial)
    return TrainingStep(objective, training, start_accelerator(training))


def table(cells: Sequence[Cell]) -> str:
    """A row for each objective: seconds, and how many times the squared error's."""
    heads = ["losses", "ms a step", "processor ms", "÷ squared error"]
    rows: list[list[object]] = []
    for cell in (cell for cell in cells if "error" not in cell):
        worked = cell["processor_seconds"]
        rows += [
            [name, cell["seconds"][name] * 1e3, worked[name] * 1e3, worked[name] / worked["squared error"]]
            for name in worked
        ]
    failed = [f"{cell['label']}: {cell['error']}" for cell in cells if "error" in cell]
    return "\n\n".join([markdown_table(heads, rows), *failed])


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command; status 1 where the measurement failed."""
    return command_status(benchmark_tokenizer_step, TokenizerStepBenchmark, arguments, program)


if __name__ == "__main__":
    sys.exit(main(program="python -m benchmarks.tokenizer_step"))
