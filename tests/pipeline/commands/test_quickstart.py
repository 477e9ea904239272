"""The project's main job, as a newcomer runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cli import main as rasterwise


@pytest.mark.slow
def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It trains both stages on real digits, draws recognisable ones, and shows its report at once the next time."""
    output = tmp_path / "quickstart"
    assert rasterwise(["quickstart", "--output", str(output), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    saved = json.loads((output / "report.json").read_text())
    assert saved == report | {"checksum": saved["checksum"]}
    assert report["reconstruction"]["codebook_usage"] >= 0.8
    assert report["conditional_accuracy"] >= 0.90
    assert report["classifier_accuracy"] >= 0.95
    assert report["nats_per_code"] < report["code_histogram_entropy_nats"] - 0.5
    for name in ("samples.png", "reconstructions.png"):
        assert np.asarray(Image.open(output / name)).std() > 30
    before = (output / "samples.png").stat().st_mtime_ns
    assert rasterwise(["quickstart", "--output", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert (output / "samples.png").stat().st_mtime_ns == before
