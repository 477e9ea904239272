"""One training of a cell: how many steps its budget allows, found out once, and the run that takes them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from pipeline.compare.plan.budget import Budget
from rasterwise.data.splits import Split
from rasterwise.files import from_json, read_json, write_json
from rasterwise.measure.timing import median, seconds_of, with_peak_memory
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig, TrainingReport
from rasterwise.training.dry_run import extrapolated_costs
from rasterwise.training.loop import train
from rasterwise.training.objective import Evaluate, Objective, TrainingTask
from rasterwise.training.run.run_folder import REPORT_NAME, RunFolder
from rasterwise.training.step import TrainingStep

STEPS_NAME = "steps.json"
STAGE_NAME = "stage.json"
TIMED_STEPS = 5
CHECKPOINTS = 4


class StoppedError(RuntimeError):
    """A training was asked to stop, and left a checkpoint to resume from."""


@dataclass(frozen=True)
class Stage:
    """What is trained.

    Attributes:
        folder: The stage's folder, with ``steps.json``, ``run/`` and ``stage.json``.
        objective: Builds the model with its losses, the same one for the same state of torch's generator.
        split: What to train on.
        evaluate: Measures the model on the test split.
        training: How it is trained; steps, warm-up and averaging are replaced by those that fit the budget.
    """

    folder: Path
    objective: Callable[[], Objective]
    split: Split
    evaluate: Evaluate
    training: TrainingConfig


@dataclass(frozen=True)
class PlannedSteps:
    """How long a stage trains: ``steps.json``.

    Attributes:
        steps: Training steps.
        flops_a_step: FLOPs of one.
        step_seconds: Seconds of the steps that were timed; none where the budget is not one of time.
    """

    steps: int
    flops_a_step: int
    step_seconds: tuple[float, ...]


@dataclass(frozen=True)
class StageReport:
    """The result of a stage's training: ``stage.json``.

    Attributes:
        steps: Training steps.
        images_per_second: Training images per second.
        seconds: Seconds of training, in the session that ended it.
        flops: FLOPs of all steps.
        peak_bytes: Peak memory of the training process in bytes, libraries and data included.
        test: Test metrics of the trained model.
    """

    steps: int
    images_per_second: float
    seconds: float
    flops: float
    peak_bytes: int
    test: dict[str, float]


def train_stage(stage: Stage, budget: Budget) -> StageReport:
    """Train for a budget, or resume the training; a finished one is not repeated.

    Raises:
        OverBudgetError: Not even one step fits the budget.
        StoppedError: The training was asked to stop.
    """
    done = stage.folder / STAGE_NAME
    if done.exists():
        report: StageReport = from_json(StageReport, read_json(done), done)
        return report
    planned = planned_steps(stage, budget)
    steps = planned.steps
    training = dataclasses.replace(
        stage.training,
        steps=steps,
        warmup_steps=min(100, steps // 10),
        ema_decay=min(0.999, max(0.0, 1 - 10 / steps)),
        evaluate_every=steps,
        log_every=max(1, steps // 50),
        save_every=max(1, -(-steps // CHECKPOINTS)),
        keep_last=1,
    )
    accelerator = start_accelerator(training)
    task = TrainingTask(stage.objective(), stage.split, stage.evaluate, card="Trained for a comparison.")
    run = RunFolder.claim(stage.folder / "run", "compare", training)
    before, trained = run.report, list[TrainingReport]()

    def work() -> None:
        path = run.path / REPORT_NAME
        trained.append(
            train(task, training, run, accelerator)
            if before is None
            else from_json(TrainingReport, before, path)
        )

    memory = with_peak_memory(work, accelerator.device)
    if trained[0].stopped:
        raise StoppedError
    result = StageReport(
        steps=steps,
        images_per_second=trained[0].items_per_second,
        seconds=trained[0].training_seconds,
        flops=float(steps) * planned.flops_a_step,
        peak_bytes=memory.peak_bytes,
        test=trained[0].test,
    )
    write_json(done, dataclasses.asdict(result))
    return result


def planned_steps(stage: Stage, budget: Budget) -> PlannedSteps:
    """How many steps the budget allows: measured once and written down, so that a resumed training takes as many."""
    path = stage.folder / STEPS_NAME
    if path.exists():
        found: PlannedSteps = from_json(PlannedSteps, read_json(path), path)
        return found
    accelerator = start_accelerator(stage.training)
    objective = stage.objective()
    seconds: list[float] = []
    if budget.unit == "seconds":  # a model that does not fit memory or budget fails here, before further work
        seconds = timed_steps(stage, objective, accelerator, budget.amount / 10)
        budget.steps(step_seconds=median(seconds), flops_a_step=0)
    objective.to(accelerator.device).train()
    batch = next(stage.split.shuffled(stage.training.batch_size, seed=stage.training.seed))
    flops = extrapolated_costs(objective, batch.to(accelerator.device), accelerator).flops
    steps = budget.steps(step_seconds=median(seconds) if seconds else 0.0, flops_a_step=flops)
    planned = PlannedSteps(steps, flops, tuple(seconds))
    write_json(path, dataclasses.asdict(planned))
    return planned


def timed_steps(
    stage: Stage, objective: Objective, accelerator: Accelerator, limit_seconds: float
) -> list[float]:
    """Seconds of a few training steps on the stage's data, after a first one as warm-up.

    Args:
        stage: What is trained.
        objective: Its model with its losses.
        accelerator: From ``start_accelerator``.
        limit_seconds: No further step begins after so long.
    """
    training = stage.training
    train_step = TrainingStep(objective, training, accelerator)
    batches = stage.split.shuffled(training.batch_size, seed=training.seed)

    def step() -> None:
        train_step(next(batches), 0)

    began = time.monotonic()
    first = seconds_of(step, accelerator.device)
    seconds: list[float] = []
    while len(seconds) < TIMED_STEPS and time.monotonic() - began < limit_seconds:
        seconds.append(seconds_of(step, accelerator.device))
    return seconds or [first]
