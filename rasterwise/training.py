"""The one training loop, on Accelerate."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rasterwise.autoregressive import evaluating
from rasterwise.checkpoints import load_checkpoint, save_checkpoint
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.pretrained import Pretrained
from rasterwise.progress import Progress
from rasterwise.runs import RunFolder, device_name
from rasterwise.splits import Batch, Split


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
        ema_decay: Decay of the averaged weights, which are the ones evaluated and saved (0: no averaging).
        evaluate_every: Steps between evaluations on the whole test split (0: once an epoch).
        sample_every: Steps between sample pictures (0: at each evaluation).
        save_every: Steps between checkpoints (0: at each evaluation).
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
    ema_decay: float = 0.999
    evaluate_every: int = 0
    sample_every: int = 0
    save_every: int = 0
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate"):
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
    """A model and what is minimised to train it."""

    model: Pretrained

    @abstractmethod
    def forward(self, batch: Batch) -> Losses: ...


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
    """

    steps: int
    seconds: float
    items_per_second: float
    parameters: int
    device: str
    stopped: bool
    test: dict[str, float]


def start_accelerator(config: TrainingConfig) -> Accelerator:
    """Accelerate's handle on devices, processes and precision for one run."""
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    mixed = {"fp32": "no", "bf16": "bf16"}[config.precision]
    accelerator = Accelerator(mixed_precision=mixed, cpu=config.device == "cpu")
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

    Ctrl-C or SIGTERM ends the run after the step under way, with a checkpoint; the same command goes on.

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
    optimizer = torch.optim.AdamW(
        parameter_groups(objective, config.weight_decay),
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    objective.to(accelerator.device)
    averaged = averaged_model(objective.model, config.ema_decay)
    modules: dict[str, nn.Module] = {"objective": objective} | ({"averaged": averaged} if averaged else {})
    first_step = load_checkpoint(run.path / "checkpoints", modules, optimizer, accelerator)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    model: Any = averaged.module if averaged else objective.model
    epoch_steps = math.ceil(split.length / config.batch_size) if split.length else 500
    evaluate_every = config.evaluate_every or epoch_steps
    sample_every = config.sample_every or evaluate_every
    save_every = config.save_every or evaluate_every
    batches = split.shuffled(config.batch_size, seed=config.seed, start=first_step, rank=rank, world=world)

    run.rewind(first_step)
    began, aside, test, step = time.monotonic(), 0.0, dict[str, float](), first_step
    objective.train()
    with stop_on_signal() as stop, Progress("training", "step", shown=run.main) as progress:
        while step < config.steps:
            batch = next(batches).to(accelerator.device)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_share(step, config)
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

            ending = step == config.steps or stop.requested(accelerator)
            paused = time.monotonic()
            if step % evaluate_every == 0 or step == config.steps:
                run.log(step, "train", {**values, "learning_rate": optimizer.param_groups[0]["lr"]})
                test = run_evaluation(model, accelerator, evaluate)
                run.log(step, "test", test)
                progress.line(
                    f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in test.items())
                )
            if draw and run.main and (step % sample_every == 0 or step == config.steps):
                with evaluating(model), torch.no_grad():
                    run.picture(step, "samples", draw(model))
            if step % save_every == 0 or ending:
                save_checkpoint(run.path / "checkpoints", step, modules, optimizer, accelerator)
                if run.main:
                    model.save_pretrained(run.path / "model", card=card)
            aside += time.monotonic() - paused
            rate = (step - first_step) * config.batch_size / max(1e-9, time.monotonic() - began - aside)
            main_name = next(iter(shown))
            progress(step, config.steps, f"{main_name} {values[main_name]:.4g}, {rate:.0f} images/s")
            if ending:
                break
        if step < config.steps:
            progress.line(f"stopped at step {step} of {config.steps}; the same command goes on from there")
    run.close()
    seconds = time.monotonic() - began
    report = TrainingReport(
        steps=step,
        seconds=round(seconds, 1),
        items_per_second=round((step - first_step) * config.batch_size / max(1e-9, seconds - aside), 1),
        parameters=sum(p.numel() for p in objective.model.parameters() if p.requires_grad),
        device=device_name(accelerator.device),
        stopped=step < config.steps,
        test=test,
    )
    if not report.stopped:
        run.finish(asdict(report))
    return report


def run_evaluation(model: Pretrained, accelerator: Accelerator, evaluate: Evaluate) -> dict[str, float]:
    """Metrics of a model on the test split, in evaluation mode and without gradients."""
    with evaluating(model), torch.no_grad(), accelerator.autocast():
        return evaluate(model, accelerator)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay (two dimensions or more) and without (biases, gains, scales)."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def learning_rate_share(step: int, config: TrainingConfig) -> float:
    """The share of the learning rate at a step (from 0): a linear rise, then half a cosine down to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def averaged_model(model: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential moving average of the weights; buffers follow the model's own. None for decay 0."""
    if not decay:
        return None

    def average(averages: Any, parameters: Any, updates: Tensor | int) -> None:
        # The first updates average over few steps, so that the first weights are forgotten in short runs.
        share = 1 - min(decay, (1 + float(updates)) / (10 + float(updates)))
        torch._foreach_lerp_(averages, parameters, share)

    return AveragedModel(model, multi_avg_fn=average)


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


class _Stop:
    """Whether the run was asked to end."""

    def __init__(self) -> None:
        self.signalled = False

    def requested(self, accelerator: Accelerator) -> bool:
        """True on all processes once any of them got a signal."""
        if accelerator.num_processes == 1:
            return self.signalled
        flag = torch.tensor(float(self.signalled), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum") > 0)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[_Stop]:
    """Note Ctrl-C and SIGTERM instead of dying of them; a second one has its usual effect."""
    stop = _Stop()
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        stop.signalled = True
        signal.signal(number, before[number])

    try:
        for expected in (signal.SIGINT, signal.SIGTERM):
            before[expected] = signal.signal(expected, note)
    except ValueError:  # not the main thread: nobody sends signals here
        before.clear()
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
