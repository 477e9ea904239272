"""The one training loop."""

from __future__ import annotations

from dataclasses import asdict

from accelerate import Accelerator

from rasterwise.data.dataset import broken_by_split, image_counts
from rasterwise.errors import InputError
from rasterwise.models.pretrained import Pretrained
from rasterwise.progress import Progress
from rasterwise.training.checkpoints import Checkpoints
from rasterwise.training.config import TrainingConfig, TrainingReport
from rasterwise.training.fsdp import whole_model
from rasterwise.training.monitor import Monitor
from rasterwise.training.objective import TrainingTask
from rasterwise.training.run.run_folder import RunFolder
from rasterwise.training.run.signals import stop_on_signal
from rasterwise.training.step import TrainingStep


def train(
    task: TrainingTask, config: TrainingConfig, run: RunFolder, accelerator: Accelerator
) -> TrainingReport:
    """Train, from the start or from the run's newest checkpoint.

    Ctrl-C or SIGTERM ends the run after the current step, with a checkpoint; the same command resumes it. On CPUs,
    a run that was killed at any moment and resumed ends in the same weights, bit for bit, as one that was not.

    Args:
        task: What is trained, on what, and what is recorded of it.
        config: How.
        run: Where metrics, images, checkpoints and the model go.
        accelerator: From ``start_accelerator``.

    Raises:
        NonFiniteError: A loss or the gradient's norm is not finite. The last checkpoint stays.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    config.check_processes(world)
    if config.patience and not task.objective.criterion:
        raise InputError("patience needs a test metric to wait for, and this training has none; leave it out")
    with stop_on_signal() as stop, Progress("training", "step", shown=run.main) as progress:
        train_step = TrainingStep(task.objective, config, accelerator)
        run.begin()
        if task.save_tokenizer and run.main:
            task.save_tokenizer(run.path / "tokenizer")
        if task.text_tokenizer and run.main:
            task.text_tokenizer.save_pretrained(run.path / "text-tokenizer")
        accelerator.wait_for_everyone()  # before that, the checkpoints are those of the run that was there
        checkpoints = Checkpoints(
            run.path / "checkpoints",
            train_step.modules,
            train_step.optimizers,
            accelerator,
            keep_last=config.keep_last,
            broken=broken_by_split(task.images),
        )
        start = checkpoints.load(progress.line)
        step, stopping = start.step, 0
        run.rewind(step)
        batches = task.split.shuffled(config.batch_size, seed=config.seed, start=step, rank=rank, world=world)
        monitor = Monitor(task, config, run, accelerator, progress, train_step.model, start)
        while not (stopping or monitor.over(step)):
            with monitor.clock.timing("waiting"):
                batch = next(batches)
            values = train_step(batch, step)
            step += 1
            monitor.after(step, values)
            stopping = stop.requested(accelerator)
            if stopping or monitor.saves(step):
                with monitor.clock.timing("saving"):
                    # Models first: a run that is killed between the two writes them again.
                    _save_models(train_step.model, run, task.card, best=monitor.is_best(step))
                    checkpoints.save(step, monitor.best)
        report = monitor.report(step, stopping)
    run.close()
    if not report.stopped:
        run.finish({**asdict(report), **image_counts(task.images, accelerator)})
    return report


def _save_models(model: Pretrained, run: RunFolder, card: str, *, best: bool) -> None:
    """Save the weights as the run's model, and as its best one if they are; all processes call this."""
    run.sync_metrics()
    saved = whole_model(model)
    if run.main:
        for name in ("model", "model-best") if best else ("model",):
            saved.save_pretrained(run.path / name, card=card)
