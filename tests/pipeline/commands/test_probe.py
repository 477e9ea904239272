"""The command that probes a trained model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main as rasterwise
from tests.conftest import Chain


def test_probe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row a layer and one for raw pixels, at the sizes asked for; the plot is written."""
    run = tmp_path / "run"
    small = ["--width=16", "--heads=2", "--depth=2", "--steps=2", "--evaluate-every=2", "--levels=16"]
    assert rasterwise(["train", "pixel", "--model=image-gpt", *small, f"--output={run}", "--json"]) == 0
    capsys.readouterr()
    command = ["probe", f"--source={run}", "--train-size=200", "--test-size=100"]
    assert rasterwise([*command, f"--output={tmp_path / 'probe.png'}", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    report = printed["report"]
    assert (report["train_size"], report["test_size"], len(report["layers"])) == (200, 100, 3)
    assert printed["raw_pixels_accuracy"] == report["pixels"]["accuracy"] > 0.7
    assert printed["best_layer_accuracy"] == report["layers"][printed["best_layer"]]["accuracy"]
    assert (tmp_path / "probe.png").stat().st_size > 1000
    assert rasterwise(command) == 0
    assert "| raw pixels |" in capsys.readouterr().out


def test_bad_input(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model without layers to probe, and a plot that is no image: one line each."""
    assert rasterwise(["probe", "--source", str(chain.prior)]) == 2
    assert "offers no features to probe, expected an image-gpt" in capsys.readouterr().err
    assert rasterwise(["probe", "--source", str(chain.prior), f"--output={tmp_path / 'probe.pdf'}"]) == 2
    assert "is no .png name" in capsys.readouterr().err
