"""The like-for-like benchmark: equal width and depth, and steps that fit the time. No test of a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from benchmarks import equal_time
from benchmarks.equal_time import EqualTimeBenchmark, LikeName, build, main
from rasterwise.measure.timing import median
from rasterwise.symbols.grid import Grid


@pytest.mark.parametrize("name", get_args(LikeName))
def test_models_have_the_stated_width_and_depth(name: LikeName) -> None:
    """So many layers, and maps of so many features between them."""
    model = build(name, Grid(1, 8, 8, 2), EqualTimeBenchmark(dataset="digits", width=12, depth=3))
    layers = getattr(model, "blocks", None) or model.layers
    assert len(layers) == 3
    assert model.config.width == 12


def test_steps_fit_the_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each model is trained for the time's worth of its own steps, and tested on the whole test split."""
    monkeypatch.setattr(equal_time, "in_fresh_process", lambda threads, work, *rest: work(*rest))
    command = [
        "--dataset=digits",
        "--width=8",
        "--depth=1",
        "--minutes=0.002",
        "--timed-steps=1",
        "--batch-size=4",
    ]
    command += ["--threads=1", "--precision=fp32", f"--runs={tmp_path / 'runs'}", "--json"]
    assert main([*command, f"--output={tmp_path / 'cells.json'}", "--models", "pixelcnn", "row-lstm"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["complete"]
    assert not report["failed"]
    for cell in report["cells"]:
        seconds = median(cell["step_seconds"])
        assert cell["steps"] == max(1, round(0.12 / seconds))
        assert cell["images"] == 4 * cell["steps"]
        assert cell["images_per_second"] == 4 / seconds
        assert cell["test"]["items"] == 360
