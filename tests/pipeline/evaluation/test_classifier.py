"""The classifier of samples."""

from __future__ import annotations

import pytest
import torch

from pipeline.evaluation.classifier import classifier_accuracy, fit_classifier
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.errors import InputError

CPU = torch.device("cpu")


def test_it_learns_real_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted on the training digits alone, it reads held-out ones; the random state outside is untouched."""
    monkeypatch.setattr("pipeline.evaluation.classifier.STEPS_AT_LEAST", 150)
    data = open_images(DataConfig())
    before = torch.get_rng_state()
    classifier = fit_classifier(data.train, data.shape, 10, CPU)
    assert torch.equal(before, torch.get_rng_state())
    assert classifier_accuracy(classifier, data.test) > 0.93
    noise = torch.randint(256, (200, 1, 8, 8), dtype=torch.uint8)
    chance = (classifier.predict(noise) == torch.randint(10, (200,))).double().mean()
    assert chance < 0.3


def test_it_needs_labels() -> None:
    """A dataset without classes is refused."""
    data = open_images(DataConfig())
    with pytest.raises(InputError, match="no class labels"):
        fit_classifier(data.train, data.shape, 0, CPU)
