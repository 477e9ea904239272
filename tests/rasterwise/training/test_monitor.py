"""The monitor: what is due after a step, which weights are the best, and when a run is over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rasterwise.data.indexed import tensor_split
from rasterwise.progress import Progress
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.checkpoints import Best, Start
from rasterwise.training.config import TrainingConfig
from rasterwise.training.monitor import Monitor
from rasterwise.training.objective import TrainingTask
from rasterwise.training.run.run_folder import RunFolder
from tests.rasterwise.training.test_loop import data_for, prior_objective

CONFIG = TrainingConfig(
    steps=11, batch_size=4, evaluate_every=3, log_every=2, sample_every=4, save_every=5, device="cpu"
)


def monitor(
    folder: Path,
    config: TrainingConfig = CONFIG,
    test: Iterator[float] | None = None,
    start: Start | None = None,
) -> Monitor:
    """One whose evaluations find the given values of the criterion."""
    objective = prior_objective()
    task = TrainingTask(
        objective,
        tensor_split(*data_for(objective)),
        evaluate=lambda *_: {"nll_nats": next(test or iter([1.0]))},
        draw=lambda _: Image.new("L", (2, 2)),
    )
    run, accelerator = RunFolder(folder), start_accelerator(config)
    progress = Progress("training", shown=False)
    return Monitor(task, config, run, accelerator, progress, objective.model, start or Start(0, None))


def logged(folder: Path) -> list[str]:
    return [line.split('"nll')[0] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_is_due(tmp_path: Path) -> None:
    """Metrics, evaluations, images and checkpoints at their own intervals, and all of them at the end."""
    values = iter([3.0, 5.0, 4.0, 3.5])
    watching = monitor(tmp_path, test=values)
    saved = []
    for step in range(1, 12):
        watching.after(step, {"nll_nats": float(step), "gradient_norm": 0.5})
        saved += [step] if watching.saves(step) else []
    watching.run.close()
    lines = logged(tmp_path)
    train = [2, 3, 4, 6, 8, 9, 10, 11]
    assert [line for line in lines if "train" in line] == [
        f'{{"step": {n}, "split": "train", ' for n in train
    ]
    assert [line for line in lines if "test" in line] == [
        f'{{"step": {n}, "split": "test", ' for n in (3, 6, 9, 11)
    ]
    images = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert images == [f"samples-{n:07d}.png" for n in (4, 8, 11)]
    assert saved == [3, 5, 10, 11]  # the best weights, every fifth step, the end
    assert watching.best == Best(3, 3.0)


def test_the_best_is_the_lowest_so_far(tmp_path: Path) -> None:
    """An equal value is no better, nor is one that is not a number; what an earlier session found counts."""
    values = iter([4.0, float("nan"), 3.0, 3.0])
    watching = monitor(tmp_path, replace(CONFIG, evaluate_every=1), values, Start(2, Best(2, 4.0)))
    found = []
    for step in (3, 4, 5, 6):
        watching.after(step, {"nll_nats": 1.0})
        found.append(watching.is_best(step))
    watching.run.close()
    assert found == [False, False, True, False]
    assert watching.best == Best(5, 3.0)


@pytest.mark.parametrize(
    ("patience", "best", "expected"),
    [(0, None, 11), (2, None, 6), (2, Best(3, 1.0), 9), (1, Best(6, 1.0), 9), (9, Best(3, 1.0), 11)],
)
def test_a_run_is_over(patience: int, best: Best | None, expected: int, tmp_path: Path) -> None:
    """At its last step, or after so many evaluations since the best one: by the step and the best one alone."""
    watching = monitor(tmp_path, replace(CONFIG, patience=patience), start=Start(0, best))
    assert next(step for step in range(99) if watching.over(step)) == expected


def test_the_interval_of_evaluations_is_an_epoch_unless_given(tmp_path: Path) -> None:
    """Eleven items in batches of four are three steps."""
    config = replace(CONFIG, evaluate_every=0, patience=1)
    assert not monitor(tmp_path, config).over(2)
    assert monitor(tmp_path, config).over(3)


def test_a_report_counts_its_own_session(tmp_path: Path) -> None:
    """Its rate is that of the steps since it went on; a run that was killed after its last step is evaluated."""
    watching = monitor(tmp_path, start=Start(7, Best(6, 2.0)))
    watching.clock = Clock(2.0)  # type: ignore[assignment]
    stopped = watching.report(10)
    assert (stopped.stopped, stopped.items_per_second, stopped.best_step, stopped.test) == (True, 6.0, 6, {})
    ended = watching.report(11)
    assert (ended.stopped, ended.stopped_early, ended.test) == (False, False, {"nll_nats": 1.0})


class Clock:
    """So many seconds of training have gone by."""

    waited = 0.0

    def __init__(self, seconds: float) -> None:
        self.training_seconds = seconds

    def summary(self) -> dict[str, Any]:
        names = ("seconds", "training_seconds", "evaluation_seconds", "saving_seconds", "waiting_seconds")
        return dict.fromkeys(names, self.training_seconds)
