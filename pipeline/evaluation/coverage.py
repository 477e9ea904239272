"""Mode coverage: the classes of unconditional samples, by a classifier that was trained on real images alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.evaluation.classifier import Classifier, classifier_accuracy, fit_classifier
from rasterwise.data.dataset import ImageData
from rasterwise.files import load_tensors, new_file, save_tensors
from rasterwise.models.pretrained import load_weights
from rasterwise.progress import Progress


@dataclass(frozen=True)
class Coverage:
    """The classes of drawn images, compared with those of the data.

    Attributes:
        drawn: How many drawn images were classified as each class.
        data_shares: Each class's share of the training images, by their labels.
        total_variation: Half the sum of the absolute differences of the shares: 0 where they are equal, 1 where they
            are disjoint.
        floor: The total variation of as many held-out real images (all of them where there are fewer), by the same
            classifier.
        p_value: Of a chi-square test of the hypothesis that the drawn images have the data's shares.
        missing: How many classes no drawn image was classified as.
        classifier_accuracy: On held-out real images.
    """

    drawn: tuple[int, ...]
    data_shares: tuple[float, ...]
    total_variation: float
    floor: float
    p_value: float
    missing: int
    classifier_accuracy: float


def coverage(classifier: Classifier, data: ImageData, drawn: Tensor) -> Coverage:
    """Classify drawn images and compare their classes with the data's.

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
    # The test covers the classes that the data has; images of any other count in the total variation alone.
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
    """Total variation distance between the distribution of counts ``(K,)`` and shares ``(K,)``."""
    return float((counts / counts.sum() - shares).abs().sum() / 2)


def label_counts(data: ImageData, classes: int) -> Tensor:
    """The number of training images of each class, int64 ``(K,)``."""
    counts = torch.zeros(classes, dtype=torch.int64)
    for batch in data.train.ordered(1024):
        assert batch.labels is not None
        counts += torch.bincount(batch.labels, minlength=classes)
    return counts


def classifier_of(path: Path, data: ImageData, device: torch.device, seed: int) -> Classifier:
    """A classifier of the training split, which all cells of a comparison share: trained once and kept in a file."""
    classes = len(data.classes)
    if path.exists():
        classifier = Classifier(data.shape, classes)
        load_weights(classifier, load_tensors(path), path, "the classifier of these images; delete it")
        return classifier.to(device).eval()
    with Progress("fitting a classifier", "step") as progress:
        classifier = fit_classifier(data.train, data.shape, classes, device, seed, progress)
    with new_file(path) as pending:
        save_tensors(classifier.state_dict(), pending)
    return classifier
