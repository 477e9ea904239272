"""The project's main job, as a newcomer runs it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cli import main as rasterwise
from pipeline.commands import digit_documents
from rasterwise.data.document_sources import DigitDocumentsConfig
from rasterwise.training.config import TrainingConfig

SHORT = TrainingConfig(steps=2, batch_size=8, evaluate_every=2)


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


@pytest.mark.slow
def test_quickstart_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both stages, a page of answers and a report, all cut short: the accuracies are those of docs/text.md."""
    monkeypatch.setattr(
        digit_documents, "DOCUMENTS", DigitDocumentsConfig(40, 4, tasks=("name", "draw", "sum"))
    )
    monkeypatch.setattr(digit_documents, "COPIES", 1)
    monkeypatch.setattr(digit_documents, "ANSWERS", 4)
    monkeypatch.setattr("pipeline.evaluation.classifier.STEPS_AT_LEAST", 5)
    for name in ("vqvae_recipe", "documents_recipe"):
        recipe = getattr(digit_documents, name)
        monkeypatch.setattr(
            digit_documents, name, lambda *words, of=recipe: dataclasses.replace(of(*words), training=SHORT)
        )
    output = tmp_path / "quickstart"
    words = ["quickstart", "documents", "--output", str(output), "--json"]
    assert rasterwise(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert {
        "caption_exact_match",
        "conditional_accuracy",
        "sum_written_accuracy",
        "sum_drawn_accuracy",
    } <= set(report)
    assert (output / "page" / "index.html").read_text().count('class="document"') == 12
    assert rasterwise(words) == 0
    assert json.loads(capsys.readouterr().out) == report
