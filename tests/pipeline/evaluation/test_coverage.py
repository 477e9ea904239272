"""Mode coverage, by a classifier of real digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.evaluation.coverage import classifier_of, coverage, total_variation
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import open_images


def test_total_variation() -> None:
    shares = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    assert total_variation(torch.tensor([5.0, 5.0, 0.0]), shares) == pytest.approx(0)
    assert total_variation(torch.tensor([0.0, 0.0, 9.0]), shares) == pytest.approx(1)


def test_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real test digits have every class in the data's proportions; zeros alone miss nine. The classifier is kept."""
    monkeypatch.setattr("pipeline.evaluation.classifier.STEPS_AT_LEAST", 60)
    data = open_images(DataConfig())
    classifier = classifier_of(tmp_path / "classifier.safetensors", data, torch.device("cpu"), seed=0)
    real = next(iter(data.test.ordered(360)))
    found = coverage(classifier, data, real.values)
    assert found.classifier_accuracy > 0.8
    assert found.missing == 0
    assert found.total_variation == found.floor < 0.2
    assert sum(found.drawn) == 360
    assert real.labels is not None
    zeros = coverage(classifier, data, real.values[real.labels == 0])
    assert zeros.missing >= 7
    assert zeros.total_variation > 0.7
    assert zeros.p_value < 1e-6
    again = classifier_of(tmp_path / "classifier.safetensors", data, torch.device("cpu"), seed=0)
    assert torch.equal(again.predict(real.values), classifier.predict(real.values))
