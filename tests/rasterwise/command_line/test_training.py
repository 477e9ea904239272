"""What every training command does: a dry run, a report of what is done, or the training."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rasterwise.command_line.options import TrainingOptions
from rasterwise.command_line.run import report_of
from rasterwise.command_line.training import run_training
from rasterwise.data.indexed import tensor_split
from rasterwise.data.sources.state import Origin
from rasterwise.errors import InputError
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.objective import TrainingTask
from tests.rasterwise.training.test_loop import data_for, prior_objective

CONFIG = TrainingConfig(steps=2, batch_size=4, evaluate_every=2, device="cpu")


def task() -> TrainingTask:
    objective = prior_objective()
    split = tensor_split(*data_for(objective))
    return TrainingTask(
        objective,
        split,
        evaluate=lambda *_: {"nll_nats": 1.0},
        save_tokenizer=lambda folder: (
            folder.mkdir(exist_ok=True),
            (folder / "config.json").write_text("{}"),
        ),
    )


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    options = TrainingOptions(output=tmp_path / "run", training=CONFIG, dry_run=True)
    report = run_training(options, "train", task(), start_accelerator(CONFIG))
    assert report["parameters"] > 0
    assert report["configuration"] == {"training": report["configuration"]["training"]}
    assert not (tmp_path / "run").exists()


def test_a_run_is_trained_once(tmp_path: Path) -> None:
    """The tokenizer goes into its folder; the same options again give its report, other ones are refused."""
    options = TrainingOptions(output=tmp_path / "run", training=CONFIG)
    first = run_training(options, "train", task(), start_accelerator(CONFIG))
    assert (first["output"], first["steps"]) == (str(tmp_path / "run"), 2)
    assert (tmp_path / "run" / "tokenizer" / "config.json").exists()
    report = (tmp_path / "run" / "report.json").stat().st_mtime_ns
    assert run_training(options, "train", task(), start_accelerator(CONFIG)) == first
    assert (tmp_path / "run" / "report.json").stat().st_mtime_ns == report
    other = replace(options, training=replace(CONFIG, steps=3))
    with pytest.raises(InputError, match=r"holds a run with training\.steps = 2, not 3"):
        run_training(other, "train", task(), start_accelerator(CONFIG))
    with pytest.raises(InputError, match="holds a run of 'train'"):
        run_training(options, "compare", task(), start_accelerator(CONFIG))


def test_images_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were found, those that were read, and those that were left out, if any."""
    split = task().split
    monkeypatch.setattr(type(split), "broken", {3: "cut short", 5: "no image"})
    test = SimpleNamespace(broken={})
    images: Any = SimpleNamespace(train=split, test=test, found=12, origin=Origin("digits"))
    options = TrainingOptions(output=tmp_path / "run", training=CONFIG)
    report = run_training(options, "train", replace(task(), images=images), start_accelerator(CONFIG))
    assert (report["images_found"], report["images_read"], report["broken_images"]) == (12, 10, 2)


@pytest.mark.parametrize("wrong", [{"precision": "fp16"}, {"batch_size": 5, "accumulate": 5, "patience": 1}])
def test_a_refused_training_changes_nothing(wrong: dict[str, Any], tmp_path: Path) -> None:
    """--force deletes the old run when nothing can refuse the new one; a new folder is not there afterwards."""
    options = TrainingOptions(output=tmp_path / "run", training=CONFIG)
    run_training(options, "train", task(), start_accelerator(CONFIG))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    refused = task()
    if "patience" in wrong:
        type(refused.objective).criterion, criterion = "", type(refused.objective).criterion
    else:
        refused.objective.adversaries = (prior_objective(),)
    try:
        for output, force in ((tmp_path / "run", True), (tmp_path / "new", False)):
            bad = replace(options, output=output, force=force, training=replace(CONFIG, **wrong))
            with pytest.raises(InputError, match=r"patience needs|not trained in fp16"):
                run_training(bad, "train", refused, start_accelerator(CONFIG))
    finally:
        if "patience" in wrong:
            type(refused.objective).criterion = criterion
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert (
        run_training(replace(options, force=True), "train", task(), start_accelerator(CONFIG))["steps"] == 2
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_is_stopped_has_a_status_of_its_own(
    number: signal.Signals, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has its report, but what follows it with ``&&`` in a shell does not begin; resumed, it ends with 0."""
    options = TrainingOptions(output=tmp_path / "run", training=CONFIG)
    stopped = task()
    stopped.objective.register_forward_pre_hook(lambda *_: os.kill(os.getpid(), number))
    accelerator = start_accelerator(CONFIG)
    assert report_of(lambda: run_training(options, "train", stopped, accelerator), as_json=True) == status
    report = json.loads(capsys.readouterr().out)
    assert (report["steps"], report["stopped"], report["stop_signal"]) == (1, True, number)
    assert report_of(lambda: run_training(options, "train", task(), accelerator), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["stop_signal"] is None
