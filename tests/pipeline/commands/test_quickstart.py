"""The project's main job, as a newcomer runs it."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.cli import main as rasterwise
from pipeline.commands import digit_documents, digits
from rasterwise.data.document_sources import DigitDocumentsConfig
from rasterwise.training.config import TrainingConfig

SHORT = TrainingConfig(steps=2, batch_size=8, evaluate_every=2)


@pytest.mark.long
def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It trains both stages on real digits and draws recognisable ones."""
    report = quickstart_twice(tmp_path / "quickstart", capsys)
    assert report["reconstruction"]["codebook_usage"] >= 0.8
    assert report["conditional_accuracy"] >= 0.90
    assert report["classifier_accuracy"] >= 0.95
    assert report["nats_per_code"] < report["code_histogram_entropy_nats"] - 0.5
    for name in ("samples.png", "reconstructions.png"):
        assert np.asarray(Image.open(tmp_path / "quickstart" / name)).std() > 30


@pytest.mark.slow
def test_quickstart_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every part of it, whatever it draws; the test above, which takes minutes, looks at that."""
    monkeypatch.setattr(digits, "COPIES", 1)
    measured = functools.partial(digits.evaluate_pipeline, samples=20, distance_images=20)
    monkeypatch.setattr(digits, "evaluate_pipeline", measured)
    shorten(monkeypatch, digits, "vqvae_recipe", "prior_recipe")
    report = quickstart_twice(tmp_path / "quickstart", capsys)
    assert {"nats_per_code", "reconstruction", "conditional_accuracy", "seconds"} <= set(report)
    assert report["test_images"] == 360


def quickstart_twice(output: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Its report, which is saved, and shown at once the next time."""
    assert rasterwise(["quickstart", "--output", str(output), "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    saved = json.loads((output / "report.json").read_text())
    assert saved == report | {"checksum": saved["checksum"]}
    before = (output / "samples.png").stat().st_mtime_ns
    assert rasterwise(["quickstart", "--output", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert (output / "samples.png").stat().st_mtime_ns == before
    return report


def shorten(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *recipes: str) -> None:
    """Cut the trainings of a quickstart's recipes, and of its classifier, to a few steps."""
    monkeypatch.setattr("pipeline.evaluation.classifier.STEPS_AT_LEAST", 5)
    for name in recipes:
        recipe = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *words, of=recipe: dataclasses.replace(of(*words), training=SHORT)
        )


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
    shorten(monkeypatch, digit_documents, "vqvae_recipe", "documents_recipe")
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
