"""The one training loop, on Accelerate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.export import register_dataclass

from rasterwise.data.splits import Batch, Split
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.measure.machine import device_name
from rasterwise.progress import Progress
from rasterwise.training.checkpoints import Checkpoints
from rasterwise.training.config import TrainingConfig, TrainingReport
from rasterwise.training.fsdp import check_sharding, shard_like, whole, whole_model
from rasterwise.training.gradient_checkpointing import checkpoint_layers
from rasterwise.training.monitor import Draw, Evaluate, Outputs, run_evaluation
from rasterwise.training.objective import Losses, Objective
from rasterwise.training.optimizer import averaged_model, learning_rate_share, parameter_groups
from rasterwise.training.run.run_folder import RunFolder
from rasterwise.training.run.signals import stop_on_signal

register_dataclass(Losses)  # so that FSDP finds the tensor that the backward pass begins at


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
        run: Where metrics, images, checkpoints and the model go.
        accelerator: From ``start_accelerator``.
        evaluate: (model, accelerator) to metrics over the whole test split, called by all processes.
        draw: Model to sample image, called by the main process.
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
