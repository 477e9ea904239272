"""The benchmark of growth: its grids, and the exponent of its own figures. No test of a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import growth
from benchmarks.growth import GrowthBenchmark, main, measure_growth, table
from rasterwise.errors import InputError
from rasterwise.measure.timing import median


def test_a_cell_says_what_was_measured() -> None:
    """Every height in turn, and the slope of the medians in logarithms."""
    cell = measure_growth("pixelcnn", GrowthBenchmark(heights=(2, 5), repeats=2, batch_size=2, size="tiny"))
    assert cell["symbols"] == [2 * 4, 5 * 4]
    assert [median(taken) for taken in cell["sample_seconds"]] == cell["sample_seconds_median"]
    first, last = cell["sample_seconds_median"]
    assert cell["exponent"] == pytest.approx(np.log(last / first) / np.log(5 / 2))


def test_table() -> None:
    """Milliseconds a symbol; a failed cell is named below."""
    cell = {
        "label": "x",
        "heights": [2, 4],
        "symbols": [10, 20],
        "sample_seconds_median": [1.0, 3.0],
        "exponent": 1.5,
    }
    assert "| x | 100 | 150 | 1.50 |" in table([cell, {"label": "y", "error": "no memory"}])
    assert "y: no memory" in table([cell, {"label": "y", "error": "no memory"}])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes the JSON and the plot."""
    monkeypatch.setattr(growth, "in_fresh_process", lambda threads, work, *rest: work(*rest))
    command = ["--models", "row-lstm", "--heights", "2", "3", "--size=tiny", "--batch-size=1", "--repeats=1"]
    command += [f"--output={tmp_path / 'growth.json'}", f"--plot={tmp_path / 'growth.png'}", "--device=cpu"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"]
    assert (tmp_path / "growth.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "wrong", [{"heights": (4,)}, {"models": ()}, {"repeats": 0}, {"plot": Path("x.pdf")}]
)
def test_bad_input(wrong: dict[str, object]) -> None:
    """Refused before anything is measured."""
    with pytest.raises(InputError, match=r"asked for|no \.png"):
        GrowthBenchmark(**wrong)  # type: ignore[arg-type]
