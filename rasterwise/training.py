"""The one training loop, on Accelerate."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.export import register_dataclass

from rasterwise.checkpoints import Checkpoints
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.gradient_checkpointing import checkpoint_layers
from rasterwise.optimization import averaged_model, learning_rate_share, parameter_groups
from rasterwise.outputs import Draw, Evaluate, Outputs, run_evaluation
from rasterwise.pretrained import Pretrained
from rasterwise.progress import Progress
from rasterwise.runs import RunFolder, device_name
from rasterwise.sharding import check_sharding, configure_sharding, shard_like, whole, whole_model
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
        precision: fp32, or autocast to bf16 or fp16 on CPUs and GPUs that have it, fp16 with its loss scaled;
            weights, codebook and likelihoods stay in float32.
        gradient_checkpointing: Compute layers again in the backward pass instead of holding all that they
            computed: less memory and about a third more time, for the same gradients.
        compile: Let torch.compile fuse the objective's forward and backward pass: a minute or two at the
            start, then faster steps; sums are rounded otherwise than in eager training.
        ema_decay: Decay of the averaged weights, which are the ones evaluated and saved (0: no averaging).
        evaluate_every: Steps between evaluations on the whole test split (0: once an epoch).
        log_every: Steps between lines of training metrics (0: at each evaluation); each evaluation has one too.
        patience: End the run after this many evaluations without a better one (0: never).
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
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = False
    ema_decay: float = 0.999
    evaluate_every: int = 0
    log_every: int = 50
    patience: int = 0
    sample_every: int = 0
    save_every: int = 0
    keep_last: int = 2
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "keep_last"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for name in ("evaluate_every", "log_every", "patience", "sample_every", "save_every"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal parts")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay is {self.ema_decay}, expected at least 0 (off) and below 1")

    def check_processes(self, count: int) -> None:
        """InputError where that many processes cannot share a batch."""
        if self.batch_size % (count * self.accumulate):
            raise InputError(
                f"batch_size {self.batch_size} cannot be shared by {count} processes × {self.accumulate} parts"
            )


@dataclass(frozen=True)
class Losses:
    """What an objective gives for a batch.

    Attributes:
        total: The scalar to minimise, a mean over the batch's items.
        shown: Detached scalars in units of their own, for the progress bar and the log.
    """

    total: Tensor
    shown: dict[str, Tensor]


register_dataclass(Losses)  # so that FSDP finds the tensor that the backward pass begins at


class Objective(nn.Module, ABC):
    """A model and what is minimised to train it.

    Attributes:
        model: What is trained and saved.
        criterion: The test metric that tells which weights are best, the lower the better; empty: none does.
        more_to_come: Whether the batch is a part of one that is accumulated, and not the last: what is learned
            without gradients waits for the last.
    """

    model: Pretrained
    criterion: str = ""
    more_to_come: bool = False

    @abstractmethod
    def forward(self, batch: Batch) -> Losses: ...


@dataclass(frozen=True)
class TrainingReport:
    """How a training run ended.

    Attributes:
        steps: Optimizer steps done in all.
        seconds: Wall-clock seconds of this session: of training, evaluation and saving.
        training_seconds: Of its training steps, waiting for data included.
        evaluation_seconds: Of evaluations and sample pictures.
        saving_seconds: Of checkpoints and models.
        waiting_seconds: Of waiting for data.
        items_per_second: Training items by training_seconds.
        parameters: Trained parameters of the model.
        device: What it ran on.
        stopped: True if it was asked to stop before its end.
        stopped_early: True if its end came before its last step, since patience had run out.
        test: The last metrics on the test split.
        best_step: The step whose weights are in ``model-best``; None where no metric tells.
    """

    steps: int
    seconds: float
    training_seconds: float
    evaluation_seconds: float
    saving_seconds: float
    waiting_seconds: float
    items_per_second: float
    parameters: int
    device: str
    stopped: bool
    stopped_early: bool
    test: dict[str, float]
    best_step: int | None


def start_accelerator(config: TrainingConfig) -> Accelerator:
    """Accelerate's handle on devices, processes and precision for one run.

    Raises:
        InputError: The device lacks the precision, or Accelerate's configuration shards as no training here does.
    """
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    mixed = "no" if config.precision == "fp32" else config.precision
    # Where Accelerate is not told that it is on CPUs, it takes torchrun's processes for so many lone ones.
    cpu = config.device == "cpu" or not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision=mixed, cpu=cpu)
    if mixed == "fp16" and accelerator.device.type == "cpu":
        # Accelerate knows no fp16 on CPUs and would train in float32 without a word; torch has all it takes.
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu")
    if mixed == "bf16" and accelerator.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"{device_name(accelerator.device)} has no bf16; use --precision fp32")
    configure_sharding(accelerator)
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
    config.check_processes(world)
    if config.patience and not objective.criterion:
        raise InputError("patience needs a test metric to wait for, and this training has none; leave it out")
    check_sharding(objective.model, accelerator)
    groups = parameter_groups(objective, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)
    objective.to(accelerator.device)
    averaged = averaged_model(objective.model, config.ema_decay)
    if config.gradient_checkpointing:
        checkpoint_layers(objective.model)
    modules: dict[str, nn.Module] = {"objective": objective} | ({"averaged": averaged} if averaged else {})
    with stop_on_signal() as stop, Progress("training", "step", shown=run.main) as progress:
        wrapped, optimizer = accelerator.prepare(objective, optimizer)
        if averaged:
            shard_like(averaged.module, objective.model)
        checkpoints = Checkpoints(
            run.path / "checkpoints", modules, optimizer, accelerator, keep_last=config.keep_last
        )
        first_step = step = checkpoints.load(progress.line)
        if config.compile:
            wrapped.compile()
        batches = split.shuffled(config.batch_size, seed=config.seed, start=step, rank=rank, world=world)
        run.rewind(step)
        objective.train()
        model: Any = averaged.module if averaged else objective.model
        outputs = Outputs(config, split, run, accelerator, progress, model, evaluate, draw)
        clock = outputs.clock
        while not (over := outputs.over(step, checkpoints.best)):
            with clock.timing("waiting"):
                batch = next(batches)
            batch = batch.to(accelerator.device)
            share = learning_rate_share(step, steps=config.steps, warmup_steps=config.warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * share
            shown = dict[str, Tensor]()
            for part, last in _parts(batch, config.accumulate):
                objective.more_to_come = not last
                with contextlib.nullcontext() if last else accelerator.no_sync(wrapped):
                    with accelerator.autocast():
                        losses = wrapped(part)
                    accelerator.backward(losses.total / config.accumulate)
                for name, value in losses.shown.items():
                    shown[name] = shown.get(name, torch.zeros_like(value)) + value / config.accumulate
            norm = accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_norm or math.inf)
            values = _finite({**shown, "gradient_norm": whole(norm)}, step + 1, accelerator.scaler)
            optimizer.step()
            optimizer.zero_grad()
            if averaged:
                averaged.update_parameters(objective.model)
            step += 1

            stopping = stop.requested(accelerator)
            outputs.measure(step, {**values, "learning_rate": config.learning_rate * share})
            better = outputs.best(step, objective.criterion, checkpoints.best)
            checkpoints.best = better or checkpoints.best
            over = outputs.over(step, checkpoints.best)
            if better or outputs.due(step, config.save_every) or stopping or over:
                with clock.timing("saving"):
                    run.sync_metrics()
                    # The models come first: a run killed in between writes them again.
                    saved = whole_model(model)
                    if run.main:
                        saved.save_pretrained(run.path / "model", card=card)
                        if better:
                            saved.save_pretrained(run.path / "model-best", card=card)
                    checkpoints.save(step)
            name = next(iter(shown))
            rate = (step - first_step) * config.batch_size / clock.training_seconds
            progress(
                step, config.steps, f"{name} {values[name]:.4g}, {rate:.0f} images/s, data {clock.waited:.0%}"
            )
            if stopping and not over:
                progress.line(
                    f"stopped at step {step} of {config.steps}; the same command goes on from there, "
                    f"and so does --resume {run.path}"
                )
                break
        if over and step < config.steps:
            since = f"since step {checkpoints.best.step}" if checkpoints.best else "at all"
            progress.line(
                f"ended early, at step {step} of {config.steps}: no better {objective.criterion} {since}; "
                f"the best weights are in {run.path / 'model-best'}"
            )
        if over and not outputs.test:  # it was killed between its last step and its report
            outputs.test = run_evaluation(model, accelerator, evaluate)
    run.close()
    report = TrainingReport(
        steps=step,
        **clock.summary(),
        items_per_second=round((step - first_step) * config.batch_size / clock.training_seconds, 1),
        parameters=sum(p.numel() for p in objective.model.parameters() if p.requires_grad),
        device=device_name(accelerator.device),
        stopped=not over,
        stopped_early=over and step < config.steps,
        test=outputs.test,
        best_step=checkpoints.best.step if checkpoints.best else None,
    )
    if not report.stopped:
        run.finish(asdict(report))
    return report


def _parts(batch: Batch, count: int) -> Iterator[tuple[Batch, bool]]:
    size = len(batch) // count
    for number in range(count):
        yield batch[number * size : (number + 1) * size], number == count - 1


def _finite(values: dict[str, Tensor], step: int, scaler: Any = None) -> dict[str, float]:
    """Numbers, in one transfer from the device for all of them.

    A gradient that overflowed because its loss was scaled is left out: the step is passed over, and the next
    ones have a smaller scale.
    """
    numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
    finite = {name: number for name, number in zip(values, numbers, strict=True) if math.isfinite(number)}
    for name, number in zip(values, numbers, strict=True):
        if name not in finite and not (name == "gradient_norm" and scaler and scaler.get_scale() > 1):
            raise NonFiniteError(
                f"{name} is {number} at step {step}; the last checkpoint stays. A lower --learning-rate may help"
            )
    return finite
