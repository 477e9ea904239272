"""The training loop: resumed runs, averaged weights, accumulation, and every way a run can end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from pixel_baselines import GatedPixelCNN, GatedPixelCNNConfig, PixelCNNPP, PixelCNNPPConfig
from rasterwise.data.indexed import tensor_split
from rasterwise.data.splits import Batch
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.checkpoints import Checkpoints
from rasterwise.training.config import TrainingConfig, TrainingReport
from rasterwise.training.likelihood import LikelihoodObjective
from rasterwise.training.loop import train
from rasterwise.training.objective import Losses, Objective, TrainingTask
from rasterwise.training.run.run_folder import RunFolder
from stage1_vqvae import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage2_prior import TransformerPrior, TransformerPriorConfig
from tests.autoregressive_suite import random_symbols

SMALL_GRID = Grid(1, 3, 3, 5)
SHORT = TrainingConfig(steps=8, batch_size=4, warmup_steps=2, evaluate_every=3, log_every=2, save_every=2)


def prior_objective() -> LikelihoodObjective:
    torch.manual_seed(0)
    config = TransformerPriorConfig(
        grid=SMALL_GRID, classes=("a", "b"), depth=1, width=16, heads=2, dropout=0.2
    )
    return LikelihoodObjective(TransformerPrior(config), label_dropout=0.5)


def vqvae_objective() -> LearnedTokenizerObjective:
    """More codes than a batch can use, so that some are renewed at every step."""
    torch.manual_seed(0)
    return LearnedTokenizerObjective(
        VQVAE(
            VQVAEConfig(
                factor=2,
                quantizer=VectorQuantizerConfig(codebook_size=80, code_width=4),
                autoencoder=ConvolutionalConfig(width=16, blocks=1),
            )
        )
    )


def gated_objective() -> LikelihoodObjective:
    """A Gated PixelCNN on pixels that are binarized anew each time."""
    torch.manual_seed(0)
    tokenizer = PixelTokenizer(PixelTokenizerConfig(levels=2, dynamic=True))
    config = GatedPixelCNNConfig(grid=tokenizer.grid(1, 8, 8), classes=("a", "b"), width=8, depth=2)
    return LikelihoodObjective(GatedPixelCNN(config), tokenizer, label_dropout=0.5)


def pixelcnn_pp_objective() -> LikelihoodObjective:
    """PixelCNN++, with its dropout and the weights that start from the first batch."""
    torch.manual_seed(0)
    config = PixelCNNPPConfig(grid=SMALL_GRID, width=8, blocks=1, components=2, dropout=0.5)
    return LikelihoodObjective(PixelCNNPP(config))


OBJECTIVES = [prior_objective, vqvae_objective, gated_objective, pixelcnn_pp_objective]


def data_for(objective: Objective) -> tuple[Tensor, Tensor]:
    labels = torch.arange(11) % 2
    if isinstance(objective, LearnedTokenizerObjective) or isinstance(objective.model, GatedPixelCNN):
        return torch.randint(
            256, (11, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        ), labels
    return random_symbols(objective.model.grid, 11), labels  # type: ignore[union-attr, operator]


def run_training(
    objective: Objective,
    folder: Path,
    config: TrainingConfig = SHORT,
    stop_after: int | None = None,
    signal_sent: signal.Signals = signal.SIGINT,
) -> TrainingReport:
    """Train on eleven items; ``stop_after`` sends the process a signal once that many batches have been seen."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == stop_after:
            os.kill(os.getpid(), signal_sent)

    handle = objective.register_forward_pre_hook(count)
    try:
        task = TrainingTask(objective, tensor_split(*data_for(objective)), measured)
        return train(task, config, RunFolder(folder), start_accelerator(config))
    finally:
        handle.remove()


def measured(model: nn.Module, _: object) -> dict[str, float]:
    """Metrics that hang on every weight."""
    answer = float(sum(p.double().sum() for p in model.parameters()))
    return {"answer": answer, "nll_nats": abs(answer), "mse": abs(answer)}


def assert_same_end(whole: Path, parts: Path, steps: int = 8) -> None:
    """Weights, averages, codebook, optimizer, random state and metrics are the same, bit for bit."""
    names = [f"{folder}/model.safetensors" for folder in ("model", "model-best")]
    for name in (*names, f"checkpoints/step-{steps:08d}/state.safetensors", "metrics.jsonl"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(
    ("build", "signal_sent"),
    [*((build, signal.SIGINT) for build in OBJECTIVES), (prior_objective, signal.SIGTERM)],
)
def test_a_stopped_run_ends_in_the_same_weights(
    build: Callable[[], Objective],
    signal_sent: signal.Signals,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C or SIGTERM in the midst of an epoch, then the same command: the same end, bit for bit."""
    whole = run_training(build(), tmp_path / "whole")
    capsys.readouterr()
    stopped = run_training(build(), tmp_path / "parts", stop_after=5, signal_sent=signal_sent)
    assert (stopped.steps, stopped.stopped) == (5, True)
    assert "stopped at step 5 of 8; the same command goes on from there" in capsys.readouterr().err
    assert not (tmp_path / "parts" / "report.json").exists()
    torch.manual_seed(99)  # a new process would have another random state
    resumed = run_training(build(), tmp_path / "parts")
    assert (resumed.steps, resumed.stopped) == (8, False)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    assert (whole.test, whole.best_step) == (resumed.test, resumed.best_step)


@pytest.fixture(scope="module")
def whole_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a prior that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run_training(prior_objective(), folder)
    return folder


class KilledError(Exception):
    """Stands for SIGKILL in the tests that choose the moment."""


@pytest.mark.parametrize(
    ("target", "at"), [("save_pretrained", 1), ("save_pretrained", -1), ("save", 1), ("save", -1)]
)
def test_a_run_killed_between_its_files_ends_in_the_same_weights(
    target: str, at: int, whole_prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first or the last model, or between it and the first or the last checkpoint."""
    owner: type = TransformerPrior if target == "save_pretrained" else Checkpoints
    real, calls = getattr(owner, target), 0

    def killed(self: object, *arguments: Any, **settings: Any) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KilledError
        return real(self, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(owner, target, killed)
        if at < 0:
            run_training(prior_objective(), tmp_path / "counted")
            at, calls = calls + 1 + at, 0
        with pytest.raises(KilledError):
            run_training(prior_objective(), tmp_path / "parts")
    run_training(prior_objective(), tmp_path / "parts")
    assert_same_end(whole_prior, tmp_path / "parts")


def test_a_damaged_checkpoint_is_passed_over(
    whole_prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named in a line; the run goes on from the one before and ends the same."""
    run_training(prior_objective(), tmp_path, stop_after=5)
    newest = tmp_path / "checkpoints" / "step-00000005"
    with (newest / "state.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read()
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    capsys.readouterr()
    run_training(prior_objective(), tmp_path)
    assert f"checkpoint {newest} is passed over: state.safetensors is damaged" in capsys.readouterr().err
    assert_same_end(whole_prior, tmp_path)


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    """Those of the evaluation with the lowest criterion, as a model and as a checkpoint, also across a stop."""
    values = iter([5.0, 3.0, 4.0, 4.0, float("nan"), 3.0])
    objective = prior_objective()
    weights: list[bytes] = []

    def evaluate(model: TransformerPrior, _: object) -> dict[str, float]:
        weights.append(save(model.state_dict()))
        return {"nll_nats": next(values)}

    config = replace(SHORT, steps=12, evaluate_every=2, save_every=3, keep_last=1)
    data = tensor_split(*data_for(objective))
    run = RunFolder(tmp_path)
    report = train(TrainingTask(objective, data, evaluate), config, run, start_accelerator(config))
    assert report.best_step == 4
    best = TransformerPrior.from_pretrained(tmp_path / "model-best")
    assert save(best.state_dict()) == weights[1]
    assert save(TransformerPrior.from_pretrained(tmp_path).state_dict()) == weights[5]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000012"]
    (tmp_path / "report.json").unlink()
    task = TrainingTask(prior_objective(), data, evaluate=lambda *_: {})
    again = train(task, config, run, start_accelerator(config))
    assert again.best_step == 4


def test_metrics_of_a_killed_run_are_not_written_twice(tmp_path: Path) -> None:
    """Lines after the checkpoint, and one cut short by the kill, are dropped on resuming."""
    run_training(prior_objective(), tmp_path, stop_after=5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "split": "test", "answer": 1}\n{"step": 7, "sp')
    run_training(prior_objective(), tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 3, 3, 4, 6, 6, 8, 8]


def test_run_folder_holds_what_it_should(tmp_path: Path) -> None:
    """Events, the last two checkpoints and the best, the models and the report; no pickle anywhere."""
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
    task = TrainingTask(objective, split, evaluate=lambda *_: {})
    return train(task, config, RunFolder(folder), start_accelerator(config))


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
        task = TrainingTask(objective, split, evaluate=lambda *_: {})
        train(task, config, RunFolder(folder), start_accelerator(config))
        weights.append(torch.cat([p.detach().flatten() for p in objective.model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], atol=2e-6, rtol=1e-4)


def test_patience(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run ends after so many evaluations that are no better, also across a stop, and says so."""
    values = {2: 5.0, 4: 3.0, 6: 4.0, 8: 3.0, 10: 1.0}
    config = replace(SHORT, steps=12, evaluate_every=2, save_every=3, patience=2)

    def run(folder: Path, stop_after: int | None = None) -> TrainingReport:
        objective = prior_objective()
        step = int(json.loads(newest.read_text())["step"]) if (newest := newest_step(folder)) else 0

        def count(*_: object) -> None:
            nonlocal step
            step += 1
            if step == stop_after:
                os.kill(os.getpid(), signal.SIGINT)

        objective.register_forward_pre_hook(count)
        folder.mkdir(exist_ok=True)
        split = tensor_split(*data_for(objective))
        task = TrainingTask(objective, split, evaluate=lambda *_: {"nll_nats": values[step]})
        return train(task, config, RunFolder(folder), start_accelerator(config))

    whole = run(tmp_path / "whole")
    assert (whole.steps, whole.stopped, whole.stopped_early, whole.best_step) == (8, False, True, 4)
    assert whole.test == {"nll_nats": 3.0}
    said = (
        f"ended early, at step 8 of 12: no better nll_nats since step 4; the best weights are in {tmp_path}"
    )
    assert said in capsys.readouterr().err
    assert json.loads((tmp_path / "whole" / "report.json").read_text())["stopped_early"]
    stopped = run(tmp_path / "parts", stop_after=7)
    assert (stopped.steps, stopped.stopped, stopped.stopped_early) == (7, True, False)
    assert run(tmp_path / "parts").stopped_early
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    (tmp_path / "parts" / "report.json").unlink()  # killed after its last step
    again = run(tmp_path / "parts")
    assert (again.steps, again.stopped_early, again.test) == (8, True, whole.test)


def newest_step(folder: Path) -> Path | None:
    return max((folder / "checkpoints").glob("*/step.json"), default=None)


def test_seconds_add_up(tmp_path: Path) -> None:
    """Those of training, evaluation and saving are all; waiting for data is part of training."""

    class Slow:
        length = 11

        def shuffled(self, *_: object, **__: object) -> Iterator[Batch]:
            while True:
                time.sleep(0.1)
                yield Batch(random_symbols(SMALL_GRID, 4))

    def evaluate(*_: object) -> dict[str, float]:
        time.sleep(0.2)
        return {}

    config = replace(SHORT, steps=2, evaluate_every=2)
    split: Any = Slow()
    task = TrainingTask(prior_objective(), split, evaluate)
    report = train(task, config, RunFolder(tmp_path), start_accelerator(config))
    assert 0.2 <= report.waiting_seconds <= report.training_seconds
    assert report.evaluation_seconds >= 0.2
    parts = report.training_seconds + report.evaluation_seconds + report.saving_seconds
    assert parts == pytest.approx(report.seconds, abs=0.21)  # each is rounded


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    """Each by its name."""
    for setting, name in (
        ({"steps": 0}, "steps"),
        ({"batch_size": 10, "accumulate": 3}, "parts"),
        ({"ema_decay": 1}, "ema"),
        ({"keep_last": 0}, "keep_last"),
        ({"patience": -1}, "patience"),
    ):
        with pytest.raises(InputError, match=name):
            TrainingConfig(**setting)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="patience needs a test metric"):
        scalar_run(Scalar(), tmp_path, replace(SHORT, patience=1))
