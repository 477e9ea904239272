"""A stage of a cell: the budget becomes steps once, and what is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.compare.measurement import stage as stages
from pipeline.compare.measurement.stage import Stage, planned_steps, train_stage
from pipeline.compare.plan.budget import Budget, OverBudgetError
from pixel_baselines import PixelCNN, PixelCNNConfig
from rasterwise.data.indexed import tensor_split
from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from rasterwise.training.config import TrainingConfig
from rasterwise.training.likelihood import LikelihoodObjective, evaluate_likelihood


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    config = PixelCNNConfig(grid=Grid(1, 4, 4, 4), width=8, blocks=1, output_width=8)
    split = tensor_split(torch.randint(4, (32, 1, 4, 4)))
    return Stage(
        tmp_path / "model",
        lambda: LikelihoodObjective(PixelCNN(config)),
        split,
        lambda model, accelerator: evaluate_likelihood(model, split, accelerator),
        TrainingConfig(batch_size=4, device="cpu"),
    )


def test_a_time_becomes_steps_that_are_written_down(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of the first timing stay, whatever a second one would say."""
    monkeypatch.setattr(stages, "seconds_of", lambda work, device: (work(), 0.5)[1])
    planned = planned_steps(stage, Budget.parse("10s"))
    assert planned.steps == 20
    assert planned.flops_a_step > 0
    monkeypatch.setattr(stages, "seconds_of", lambda work, device: 99.0)
    assert planned_steps(stage, Budget.parse("10s")) == planned
    assert json.loads((stage.folder / "steps.json").read_text())["steps"] == 20


def test_flops_become_steps(stage: Stage) -> None:
    flops = planned_steps(stage, Budget.parse("1step")).flops_a_step
    (stage.folder / "steps.json").unlink()
    assert planned_steps(stage, Budget(3.5 * flops, "flops")).steps == 3


def test_a_step_that_does_not_fit(stage: Stage) -> None:
    with pytest.raises(OverBudgetError, match="one training step costs"):
        train_stage(stage, Budget(1.0, "flops"))


def test_training_is_done_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report has what the run came to, and comes back without another training."""
    report = train_stage(stage, Budget.parse("6steps"))
    assert report.steps == 6
    assert report.test["items"] == 32
    assert report.flops == 6 * planned_steps(stage, Budget.parse("6steps")).flops_a_step
    assert (stage.folder / "run" / "model" / "model.safetensors").exists()

    def train(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(stages, "train", train)
    assert train_stage(stage, Budget.parse("6steps")) == report
    # A cell that was killed after its training and before its stage's report trains no more either.
    (stage.folder / "stage.json").unlink()
    assert train_stage(stage, Budget.parse("6steps")).test == report.test


@pytest.mark.parametrize("name", ["steps.json", "stage.json"])
def test_a_file_of_another_shape_is_named(name: str, stage: Stage) -> None:
    stage.folder.mkdir()
    (stage.folder / name).write_text('{"steps": "many", "test": []}')
    with pytest.raises(InputError, match=rf"{name} does not fit .*: steps is 'many'"):
        train_stage(stage, Budget.parse("6steps"))
