"""The one training loop, on Accelerate."""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor, nn

from rasterwise.autoregressive import evaluating
from rasterwise.checkpoints import Best, Checkpoints
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.optimization import averaged_model, learning_rate_share, parameter_groups
from rasterwise.pretrained import Pretrained
from rasterwise.progress import Progress
from rasterwise.runs import RunFolder, device_name
from rasterwise.splits import Batch, Split
from rasterwise.stopping import stop_on_signal


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
        steps: Optimizer steps.
        batch_size: Items a step, over all processes and accumulated batches together.
        learning_rate: AdamW's, at its highest: after the warm-up, before the cosine takes it to 0.
        warmup_steps: Steps in which the learning rate rises from 0.
        weight_decay: Decoupled, on matrices and convolution kernels alone.
        clip_norm: Gradients are scaled down to this norm (0: never).
        accumulate: Parts that a batch is cut into to save memory; the gradient is the same.
        precision: fp32, or bf16 autocast on CPUs and GPUs that have it.
        compile: Let torch.compile fuse the objective's forward and backward pass: a minute or two at the
            start, then faster steps; sums are rounded otherwise than in eager training.
        ema_decay: Decay of the averaged weights, which are the ones evaluated and saved (0: no averaging).
        evaluate_every: Steps between evaluations on the whole test split (0: once an epoch).
        sample_every: Steps between sample pictures (0: at each evaluation).
        save_every: Steps between checkpoints (0: at each evaluation). An evaluation that finds the best
            weights so far makes one too.
        keep_last: Checkpoints kept, beside the one with the best weights.
        seed: Of the first weights, the data order and the noise.
        device: auto takes a GPU where there is one.
    """

    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    accumulate: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    ema_decay: float = 0.999
    evaluate_every: int = 0
    sample_every: int = 0
    save_every: int = 0
    keep_last: int = 2
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "keep_last"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal parts")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay is {self.ema_decay}, expected at least 0 (off) and below 1")


@dataclass(frozen=True)
class Losses:
    """What an objective gives for a batch.

    Attributes:
        total: The scalar to minimise, a mean over the batch's items.
        shown: Detached scalars in units of their own, for the progress bar and the log.
    """

    total: Tensor
    shown: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A model and what is minimised to train it.

    Attributes:
        model: What is trained and saved.
        criterion: The test metric that tells which weights are best, the lower the better; empty: none does.
    """

    model: Pretrained
    criterion: str = ""

    @abstractmethod
    def forward(self, batch: Batch) -> Losses: ...


UNKNOWN_EPOCH = 500
"""Steps between evaluations where a streamed dataset does not tell its length."""

Evaluate = Callable[[Any, Accelerator], dict[str, float]]
Draw = Callable[[Any], Image.Image]


@dataclass(frozen=True)
class TrainingReport:
    """How a training run ended.

    Attributes:
        steps: Optimizer steps done in all.
        seconds: Wall-clock seconds of this session, evaluation included.
        items_per_second: Training items a second of this session, evaluation left out.
        parameters: Trained parameters of the model.
        device: What it ran on.
        stopped: True if it was asked to stop before its last step.
        test: The last metrics on the test split.
        best_step: The step whose weights are in ``model-best``; None where no metric tells.
    """

    steps: int
    seconds: float
    items_per_second: float
    parameters: int
    device: str
    stopped: bool
    test: dict[str, float]
    best_step: int | None


def start_accelerator(config: TrainingConfig) -> Accelerator:
    """Accelerate's handle on devices, processes and precision for one run.

    Raises:
        InputError: The device lacks the precision.
    """
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    mixed = {"fp32": "no", "bf16": "bf16"}[config.precision]
    accelerator = Accelerator(mixed_precision=mixed, cpu=config.device == "cpu")
    if mixed == "bf16" and accelerator.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"{device_name(accelerator.device)} has no bf16; use --precision fp32")
    torch.manual_seed(config.seed + 1_000_003 * accelerator.process_index)
    return accelerator


def train(
    objective: Objective,
    split: Split,
    config: TrainingConfig,
    run: RunFolder,
    accelerator: Accelerator,
    *,
    evaluate: Evaluate,
    draw: Draw | None = None,
    card: str = "",
) -> TrainingReport:
    """Train, from the start or from the run's newest checkpoint.

    Ctrl-C or SIGTERM ends the run after the step under way, with a checkpoint; the same command goes on. A run
    that was killed at any moment and goes on ends, on CPUs in float32, in the weights of one that was not.

    Args:
        objective: The model with its losses; on the CPU.
        split: What to train on.
        config: How.
        run: Where metrics, pictures, checkpoints and the model go.
        accelerator: From ``start_accelerator``.
        evaluate: (model, accelerator) to metrics over the whole test split, called by all processes.
        draw: Model to sample picture, called by the main process.
        card: Text for the model card.

    Raises:
        NonFiniteError: A loss or the gradient's norm is not finite. The weights are not touched by it and
            the last checkpoint stays.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    if config.batch_size % (world * config.accumulate):
        raise InputError(
            f"batch_size {config.batch_size} cannot be shared by {world} processes × {config.accumulate} parts"
        )
    groups = parameter_groups(objective, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)
    objective.to(accelerator.device)
    averaged = averaged_model(objective.model, config.ema_decay)
    modules: dict[str, nn.Module] = {"objective": objective} | ({"averaged": averaged} if averaged else {})
    with stop_on_signal() as stop, Progress("training", "step", shown=run.main) as progress:
        checkpoints = Checkpoints(
            run.path / "checkpoints", modules, optimizer, accelerator, keep_last=config.keep_last
        )
        first_step = step = checkpoints.load(progress.line)
        wrapped, optimizer = accelerator.prepare(objective, optimizer)
        if config.compile:
            wrapped.compile()
        batches = split.shuffled(config.batch_size, seed=config.seed, start=step, rank=rank, world=world)
        run.rewind(step)
        objective.train()
        model: Any = averaged.module if averaged else objective.model
        outputs = _Outputs(config, split, run, accelerator, progress, model, evaluate, draw)
        while step < config.steps:
            with outputs.waiting():
                batch = next(batches)
            batch = batch.to(accelerator.device)
            share = learning_rate_share(step, steps=config.steps, warmup_steps=config.warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * share
            shown = dict[str, Tensor]()
            for part, last in _parts(batch, config.accumulate):
                with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
                    losses = wrapped(part)
                    accelerator.backward(losses.total / config.accumulate)
                for name, value in losses.shown.items():
                    shown[name] = shown.get(name, torch.zeros_like(value)) + value / config.accumulate
            norm = accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_norm or math.inf)
            values = _finite({**shown, "gradient_norm": norm}, step + 1)
            optimizer.step()
            optimizer.zero_grad()
            if averaged:
                averaged.update_parameters(objective.model)
            step += 1

            stopping = stop.requested(accelerator)
            with outputs.aside():
                outputs.measure(step, {**values, "learning_rate": config.learning_rate * share})
                better = outputs.best(step, objective.criterion, checkpoints.best)
                if better or outputs.due(step, config.save_every) or stopping:
                    # The models come first: a run killed in between writes them again.
                    if run.main:
                        model.save_pretrained(run.path / "model", card=card)
                        if better:
                            model.save_pretrained(run.path / "model-best", card=card)
                    checkpoints.best = better or checkpoints.best
                    checkpoints.save(step)
            name = next(iter(shown))
            rate = outputs.items_per_second(step - first_step)
            note = f"{name} {values[name]:.4g}, {rate:.0f} images/s, data {outputs.waited:.0%}"
            progress(step, config.steps, note)
            if stopping and step < config.steps:
                progress.line(
                    f"stopped at step {step} of {config.steps}; the same command goes on from there, "
                    f"and so does --resume {run.path}"
                )
                break
        if not outputs.test and step == config.steps:  # it was killed between its last step and its report
            outputs.test = run_evaluation(model, accelerator, evaluate)
    run.close()
    report = TrainingReport(
        steps=step,
        seconds=round(outputs.seconds, 1),
        items_per_second=round(outputs.items_per_second(step - first_step), 1),
        parameters=sum(p.numel() for p in objective.model.parameters() if p.requires_grad),
        device=device_name(accelerator.device),
        stopped=step < config.steps,
        test=outputs.test,
        best_step=checkpoints.best.step if checkpoints.best else None,
    )
    if not report.stopped:
        run.finish(asdict(report))
    return report


class _Outputs:
    """What a run does beside training, at intervals: metrics and pictures; and the clock that leaves it out."""

    def __init__(
        self,
        config: TrainingConfig,
        split: Split,
        run: RunFolder,
        accelerator: Accelerator,
        progress: Progress,
        model: Any,
        evaluate: Evaluate,
        draw: Draw | None,
    ) -> None:
        self.config, self.run, self.accelerator, self.progress = config, run, accelerator, progress
        self.model, self.evaluate, self.draw = model, evaluate, draw
        epoch = math.ceil(split.length / config.batch_size) if split.length else UNKNOWN_EPOCH
        self.interval = config.evaluate_every or epoch
        self.test: dict[str, float] = {}
        self._began, self._aside, self._waiting = time.monotonic(), 0.0, 0.0

    def due(self, step: int, interval: int) -> bool:
        """Whether a step ends an interval (0: that of the evaluations), or the run."""
        return step % (interval or self.interval) == 0 or step == self.config.steps

    def measure(self, step: int, values: dict[str, float]) -> None:
        """Log metrics and draw a sample picture, each if it is due."""
        if self.due(step, self.interval):
            self.run.log(step, "train", values)
            self.test = run_evaluation(self.model, self.accelerator, self.evaluate)
            self.run.log(step, "test", self.test)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in self.test.items())
            self.progress.line(f"step {step}: {shown}")
        if self.draw and self.run.main and self.due(step, self.config.sample_every):
            with evaluating(self.model), torch.no_grad():
                self.run.picture(step, "samples", self.draw(self.model))

    def best(self, step: int, criterion: str, before: Best | None) -> Best | None:
        """The step with its value of the criterion, if it was evaluated and is the best so far."""
        value = self.test.get(criterion, math.nan) if self.due(step, self.interval) else math.nan
        return Best(step, value) if value < (before.value if before else math.inf) else None

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Time spent in the block is no training time."""
        began = time.monotonic()
        yield
        self._aside += time.monotonic() - began

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent in the block was spent waiting for data."""
        began = time.monotonic()
        yield
        self._waiting += time.monotonic() - began

    @property
    def waited(self) -> float:
        """Share of the training time that was spent waiting for data."""
        return self._waiting / max(1e-9, self.seconds - self._aside)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the run, or its resumption, began."""
        return time.monotonic() - self._began

    def items_per_second(self, steps: int) -> float:
        """Training items a second over the steps of this session."""
        return steps * self.config.batch_size / max(1e-9, self.seconds - self._aside)


def run_evaluation(model: Pretrained, accelerator: Accelerator, evaluate: Evaluate) -> dict[str, float]:
    """Metrics of a model on the test split, in evaluation mode and without gradients."""
    with evaluating(model), torch.no_grad(), accelerator.autocast():
        return evaluate(model, accelerator)


def _parts(batch: Batch, count: int) -> Iterator[tuple[Batch, bool]]:
    size = len(batch) // count
    for number in range(count):
        yield batch[number * size : (number + 1) * size], number == count - 1


def _finite(values: dict[str, Tensor], step: int) -> dict[str, float]:
    # One transfer from the device for all of them.
    numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
    for name, number in zip(values, numbers, strict=True):
        if not math.isfinite(number):
            raise NonFiniteError(
                f"{name} is {number} at step {step}; the last checkpoint stays. A lower --learning-rate may help"
            )
    return dict(zip(values, numbers, strict=True))
