"""The training loop: resumed runs, averaged weights, accumulation, and every way a run can end."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rasterwise.errors import InputError, NonFiniteError
from rasterwise.grid import Grid
from rasterwise.likelihood_training import LikelihoodObjective
from rasterwise.runs import RunFolder
from rasterwise.splits import Batch, tensor_split
from rasterwise.training import (
    Losses,
    Objective,
    TrainingConfig,
    TrainingReport,
    start_accelerator,
    train,
)
from stage1_vqvae import VQVAE, VQVAEConfig
from stage1_vqvae.train import VQVAEObjective
from stage2_prior import TransformerPrior, TransformerPriorConfig
from tests.autoregressive_suite import random_symbols

SMALL_GRID = Grid(1, 3, 3, 5)
SHORT = TrainingConfig(steps=8, batch_size=4, warmup_steps=2, evaluate_every=3, save_every=2)


def prior_objective() -> LikelihoodObjective:
    torch.manual_seed(0)
    config = TransformerPriorConfig(
        grid=SMALL_GRID, classes=("a", "b"), depth=1, width=16, heads=2, dropout=0.2
    )
    return LikelihoodObjective(TransformerPrior(config), label_dropout=0.5)


def vqvae_objective() -> VQVAEObjective:
    torch.manual_seed(0)
    return VQVAEObjective(VQVAE(VQVAEConfig(factor=2, codebook_size=8, code_width=4, width=16, blocks=1)))


def data_for(objective: Objective) -> tuple[Tensor, Tensor]:
    labels = torch.arange(10) % 2
    if isinstance(objective, VQVAEObjective):
        return torch.randint(
            256, (10, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        ), labels
    return random_symbols(objective.model.grid, 10), labels  # type: ignore[union-attr]


def run_training(
    objective: Objective, folder: Path, config: TrainingConfig = SHORT, stop_after: int | None = None
) -> TrainingReport:
    """Train on ten items; ``stop_after`` sends the process Ctrl-C once that many batches have been seen."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    handle = objective.register_forward_pre_hook(count)
    try:
        return train(
            objective,
            tensor_split(*data_for(objective)),
            config,
            RunFolder(folder),
            start_accelerator(config),
            evaluate=lambda model, _: {"answer": float(sum(p.double().sum() for p in model.parameters()))},
        )
    finally:
        handle.remove()


@pytest.mark.parametrize("build", [prior_objective, vqvae_objective])
def test_a_stopped_run_ends_in_the_same_weights(build: object, tmp_path: Path) -> None:
    """Ctrl-C after step 5, then the same command: weights, averages, codebook and metrics bit for bit."""
    whole = run_training(build(), tmp_path / "whole")  # type: ignore[operator]
    stopped = run_training(build(), tmp_path / "parts", stop_after=5)  # type: ignore[operator]
    assert (stopped.steps, stopped.stopped) == (5, True)
    assert not (tmp_path / "parts" / "report.json").exists()
    torch.manual_seed(99)  # a new process would have another random state
    resumed = run_training(build(), tmp_path / "parts")  # type: ignore[operator]
    assert (resumed.steps, resumed.stopped) == (8, False)
    for name in ("model/model.safetensors", "checkpoints/step-00000008/state.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert whole.test == resumed.test
    assert (tmp_path / "parts" / "metrics.jsonl").read_text() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_text()


def test_metrics_of_a_killed_run_are_not_written_twice(tmp_path: Path) -> None:
    """Lines after the checkpoint, and one cut short by the kill, are dropped on resuming."""
    run_training(prior_objective(), tmp_path, stop_after=5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "split": "test", "answer": 1}\n{"step": 7, "sp')
    run_training(prior_objective(), tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 3, 6, 6, 8, 8]


def test_run_folder_holds_what_it_should(tmp_path: Path) -> None:
    """Events, two checkpoints at most, the model and the report; no pickle anywhere."""
    run_training(prior_objective(), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"checkpoints", "metrics.jsonl", "model", "report.json"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000006",
        "step-00000008",
    ]
    suffixes = {path.suffix for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json"}


class Scalar(Objective):
    """One weight drawn towards the batch's mean; ``poison`` makes the loss nan from that step on."""

    def __init__(self, poison: int | None = None) -> None:
        super().__init__()
        self.model = TransformerPrior(TransformerPriorConfig(depth=1, width=16, heads=2))
        self.weight = nn.Parameter(torch.zeros(2))
        self.poison, self.calls = poison, 0

    def forward(self, batch: Batch) -> Losses:
        self.calls += 1
        loss = (self.weight - batch.values.float().mean()).square().mean()
        if self.poison is not None and self.calls >= self.poison:
            loss = loss * float("nan")
        return Losses(loss, {"distance": loss.detach()})


def scalar_run(objective: Scalar, folder: Path, config: TrainingConfig) -> TrainingReport:
    folder.mkdir(exist_ok=True)
    split = tensor_split(torch.arange(12.0).view(12, 1, 1, 1))
    return train(
        objective, split, config, RunFolder(folder), start_accelerator(config), evaluate=lambda *_: {}
    )


def test_a_value_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    """Named with its step; the weights are those of the step before, and the last checkpoint stays."""
    objective = Scalar(poison=6)
    with pytest.raises(NonFiniteError, match="distance is nan at step 6"):
        scalar_run(objective, tmp_path, SHORT)
    assert torch.isfinite(objective.weight).all()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000002",
        "step-00000004",
    ]


def test_accumulation_changes_the_memory_not_the_mathematics(tmp_path: Path) -> None:
    """A batch in one part or in four gives the same weights."""
    weights = []
    for accumulate in (1, 4):
        torch.manual_seed(0)
        objective = LikelihoodObjective(
            TransformerPrior(TransformerPriorConfig(grid=SMALL_GRID, depth=1, width=16, heads=2, dropout=0))
        )
        config = TrainingConfig(steps=4, batch_size=8, accumulate=accumulate, evaluate_every=4)
        folder = tmp_path / str(accumulate)
        folder.mkdir()
        split = tensor_split(random_symbols(objective.model.grid, 16))
        train(objective, split, config, RunFolder(folder), start_accelerator(config), evaluate=lambda *_: {})
        weights.append(torch.cat([p.detach().flatten() for p in objective.model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], atol=2e-6, rtol=1e-4)


def test_bf16_trains(tmp_path: Path) -> None:
    """Autocast in bfloat16 leaves weights and codebook in float32 and finite."""
    objective = vqvae_objective()
    run_training(objective, tmp_path, replace(SHORT, precision="bf16"))
    for name, value in objective.model.state_dict().items():
        assert value.dtype != torch.bfloat16, name
        assert torch.isfinite(value.float()).all(), name


def test_impossible_settings_are_refused() -> None:
    """Each by its name."""
    for setting, name in (
        ({"steps": 0}, "steps"),
        ({"batch_size": 10, "accumulate": 3}, "parts"),
        ({"ema_decay": 1}, "ema"),
    ):
        with pytest.raises(InputError, match=name):
            TrainingConfig(**setting)  # type: ignore[arg-type]
