"""Learning curves from the metrics of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.cli import main as rasterwise
from pipeline.commands.plot import Curve, read_curves, shared_metrics


def run_with(folder: Path, *lines: dict[str, object]) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two evaluations, and a line that a kill cut short."""
    folder = run_with(
        tmp_path / "run",
        {"step": 10, "split": "train", "nll_nats": 3.0, "gradient_norm": 1.0},
        {"step": 10, "split": "test", "nll_nats": 3.5, "accuracy": 0.5},
        {"step": 20, "split": "train", "nll_nats": 2.0, "gradient_norm": 0.5},
        {"step": 20, "split": "test", "nll_nats": 2.5, "accuracy": 0.7},
    )
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "sp')
    return folder


def test_curves(run: Path) -> None:
    """Steps and values of each split; by default what both splits have."""
    curves = read_curves(run)
    assert curves["test"]["nll_nats"] == Curve([10, 20], [3.5, 2.5])
    assert set(curves["train"]) == {"nll_nats", "gradient_norm"}
    assert shared_metrics([curves]) == ("nll_nats",)


def test_plot(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run or several; one panel a metric."""
    other = run_with(tmp_path / "other", {"step": 5, "split": "test", "nll_nats": 4.0})
    output = tmp_path / "curves.png"
    assert rasterwise(["plot", str(run), "--output", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == "nll_nats"
    narrow = Image.open(output).width
    both = [
        "plot",
        str(run),
        str(other),
        "--metric",
        "nll_nats",
        "accuracy",
        "--output",
        str(output),
    ]
    assert rasterwise(both) == 0
    assert Image.open(output).width > narrow


def test_bad_input(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run, no such metric, no image, no metrics yet: one line each."""
    (tmp_path / "empty").mkdir()
    new = run_with(tmp_path / "new")
    for command, said in (
        ([str(tmp_path / "empty")], "holds no metrics.jsonl"),
        ([str(new)], "holds no metrics yet"),
        ([str(run), "--metric", "psnr"], "no run has a metric 'psnr'; they have accuracy"),
        ([str(run), "--output", "curves.pdf"], "is no .png name"),
    ):
        assert rasterwise(["plot", *command]) == 2
        assert said in capsys.readouterr().err
