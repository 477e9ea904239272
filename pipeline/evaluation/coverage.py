"""Mode coverage: which classes unconditional samples are of, by a classifier fitted on real images alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.evaluation.classifier import Classifier, classifier_accuracy, fit_classifier
from rasterwise.data.dataset import ImageData
from rasterwise.files import load_tensors, new_file, save_tensors
from rasterwise.progress import Progress


@dataclass(frozen=True)
class Coverage:
    """Classes of drawn images beside those of the data.

    Attributes:
        drawn: Images called by each class.
        data_shares: Each class's share of the training images, by their labels.
        total_variation: Half the sum of the shares' differences: 0 for equal ones, 1 for disjoint ones.
        floor: The same of as many held-out real images, or of all where there are fewer, by the same classifier.
        p_value: Of a chi-square test that the drawn images have the data's shares.
        missing: Classes that no drawn image was called by.
        classifier_accuracy: The classifier's on held-out real images.
    """

    drawn: tuple[int, ...]
    data_shares: tuple[float, ...]
    total_variation: float
    floor: float
    p_value: float
    missing: int
    classifier_accuracy: float


def coverage(classifier: Classifier, data: ImageData, drawn: Tensor) -> Coverage:
    """Classifier drawn images.

    Args:
        classifier: From ``classifier_of``.
        data: Labelled.
        drawn: uint8 ``(n, C, H, W)``.
    """
    from scipy.stats import chisquare

    classes = len(data.classes)
    shares = label_counts(data, classes).double()
    shares = shares / shares.sum()
    real = next(iter(data.test.ordered(len(drawn)))).values
    counts, real_counts = (
        torch.bincount(classifier.predict(images), minlength=classes).double() for images in (drawn, real)
    )
    present = shares > 0
    expected = (shares * counts.sum())[present]
    observed = counts[present]
    # A class that the data lacks is none of the test's; its images are in the total variation.
    test = chisquare(observed.numpy() * float(expected.sum() / observed.sum().clamp(min=1)), expected.numpy())
    return Coverage(
        drawn=tuple(int(count) for count in counts),
        data_shares=tuple(shares.tolist()),
        total_variation=total_variation(counts, shares),
        floor=total_variation(real_counts, shares),
        p_value=float(test.pvalue),
        missing=int((counts == 0).sum()),
        classifier_accuracy=classifier_accuracy(classifier, data.test),
    )


def total_variation(counts: Tensor, shares: Tensor) -> float:
    """Distance of the distribution that counts ``(K,)`` make from shares ``(K,)``."""
    return float((counts / counts.sum() - shares).abs().sum() / 2)


def label_counts(data: ImageData, classes: int) -> Tensor:
    """Training images of each class, ``(K,)``."""
    counts = torch.zeros(classes, dtype=torch.int64)
    for batch in data.train.ordered(1024):
        assert batch.labels is not None
        counts += torch.bincount(batch.labels, minlength=classes)
    return counts


def classifier_of(path: Path, data: ImageData, device: torch.device, seed: int) -> Classifier:
    """The classifier of the data's training split, fitted once for all cells of a comparison and kept in a file."""
    classes = len(data.classes)
    if path.exists():
        classifier = Classifier(data.shape, classes)
        classifier.load_state_dict(load_tensors(path))
        return classifier.to(device).eval()
    with Progress("fitting a classifier", "step") as progress:
        classifier = fit_classifier(data.train, data.shape, classes, device, seed, progress)
    with new_file(path) as pending:
        save_tensors(classifier.state_dict(), pending)
    return classifier
