"""The linear probe: what each layer of a generative model knows of an image's class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from rasterwise.data.splits import Batch
from rasterwise.errors import InputError
from rasterwise.measure.figures import new_figure, save_figure
from rasterwise.models.pretrained import evaluating
from rasterwise.symbols.condition import Condition
from rasterwise.tokenizers.image import ImageTokenizer

INVERSE_L2 = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Regularizations that the validation images choose from; features are standardised."""
VALIDATION_SHARE = 0.2


@runtime_checkable
class LayeredModel(Protocol):
    """A model whose layers can be probed."""

    def layer_features(self, symbols: Tensor, condition: Condition | None = None) -> list[Tensor]:
        """int64 symbols ``(B, C, H, W)`` to one ``(B, D)`` a layer; layer 0 is the embeddings."""
        ...


@dataclass(frozen=True)
class ProbeScore:
    """How well one kind of features tells the classes apart.

    Attributes:
        features: "raw pixels" or "layer l".
        accuracy: Share of the test images that are classified correctly.
        standard_error: Of the accuracy, by the number of test images.
        validation_accuracy: Share of the validation images that are classified correctly, before the last fit.
        inverse_l2: The regularization that was chosen (scikit-learn's C: smaller is stronger).
    """

    features: str
    accuracy: float
    standard_error: float
    validation_accuracy: float
    inverse_l2: float


@dataclass(frozen=True)
class LinearProbeReport:
    """Accuracy by layer, and of raw pixels at the same number of training images.

    Attributes:
        layers: From the embeddings to the head's input.
        pixels: The same probe of the images themselves.
        train_size: Training images, including those that chose the regularization.
        test_size: Test images.
    """

    layers: tuple[ProbeScore, ...]
    pixels: ProbeScore
    train_size: int
    test_size: int

    @property
    def best_layer(self) -> int:
        """The layer with the highest validation accuracy; the test images choose nothing."""
        return max(range(len(self.layers)), key=lambda layer: self.layers[layer].validation_accuracy)

    def table(self) -> str:
        """A Markdown table: a row for raw pixels and one for each layer."""
        lines = [
            f"{self.train_size:,} training images, {self.test_size:,} test images",
            "",
            "| features   | accuracy | standard error | validation | inverse L2 |",
            "|------------|---------:|---------------:|-----------:|-----------:|",
        ]
        for score in (self.pixels, *self.layers):
            lines.append(
                f"| {score.features:<10} | {score.accuracy:8.4f} | {score.standard_error:14.4f} "
                f"| {score.validation_accuracy:10.4f} | {score.inverse_l2:10.0e} |"
            )
        return "\n".join(lines)

    def save_plot(self, path: str | Path) -> Path:
        """Draw accuracy by layer, with standard errors, as a PNG.

        Raises:
            InputError: matplotlib is not installed.
        """
        figure = new_figure(6, 4)
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        accuracies = [score.accuracy for score in self.layers]
        errors = [score.standard_error for score in self.layers]
        axes.errorbar(range(len(self.layers)), accuracies, errors, marker="o", capsize=3, label="layers")
        axes.axhline(self.pixels.accuracy, linestyle="--", color="grey", label="raw pixels")
        axes.set_xlabel("layer (0: embeddings)")
        axes.set_ylabel(f"accuracy on {self.test_size:,} test images")
        axes.set_title(f"Linear probe, {self.train_size:,} training images")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        path = Path(path)
        save_figure(figure, path, dpi=150)
        return path


def probe_layers(
    model: LayeredModel,
    tokenizer: ImageTokenizer,
    train: Batch,
    test: Batch,
    *,
    inverse_l2: Sequence[float] = INVERSE_L2,
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> LinearProbeReport:
    """Fit a logistic regression on the features of each layer, and on raw pixels, and score them.

    Features are standardised. One training image in five chooses the regularization, and the probe is then fitted
    to all training images. Nothing is fitted to or chosen by test images. The model is unconditional.

    Args:
        model: A model with ``layer_features``.
        tokenizer: Of the model's symbols.
        train: Labelled uint8 images.
        test: Labelled uint8 images.
        inverse_l2: Regularizations to choose from.
        seed: Of the choice of validation images, and of the noise of a tokenizer that draws.
        batch_size: Images that go through the model at once.
        progress: Called with (images through the model so far, images in all).

    Raises:
        InputError: The model offers no features, images have no labels, or they are too few.

    References:
        Chen et al., Generative Pretraining from Pixels, 2020 (ICML; no arXiv number), section 2.3. Alain and
        Bengio, Understanding intermediate layers using linear classifier probes, 2016 (arXiv 1610.01644).

    Example:
        >>> import torch
        >>> from rasterwise import Grid, ImageGPT, ImageGPTConfig, PixelTokenizer
        >>> dark, bright = torch.zeros(20, 1, 4, 4, dtype=torch.uint8), torch.full((20, 1, 4, 4), 255).byte()
        >>> batch = Batch(torch.cat([dark, bright]), torch.arange(2).repeat_interleave(20))
        >>> model = ImageGPT(ImageGPTConfig(grid=Grid(1, 4, 4, 256), depth=1, width=16, heads=2))
        >>> report = probe_layers(model, PixelTokenizer(), batch, batch)
        >>> [(score.features, score.accuracy) for score in report.layers]
        [('layer 0', 1.0), ('layer 1', 1.0)]
    """
    if not isinstance(model, LayeredModel):
        raise InputError(
            f"{type(model).__name__} offers no features to probe, expected a model like ImageGPT"
        )
    train_labels, test_labels = _labels(train, "training"), _labels(test, "test")
    parts, done, total = [], 0, len(train) + len(test)
    for batch in (train, test):
        generator, chunks = torch.Generator().manual_seed(seed), []
        for images in batch.values.split(batch_size):
            chunks.append(_features(model, tokenizer.encode(images, generator)))
            done += len(images)
            if progress:
                progress(done, total)
        pixels = batch.values.flatten(1).float().numpy() / 255
        parts.append([pixels, *(np.concatenate(layer) for layer in zip(*chunks, strict=True))])
    names = ["raw pixels", *(f"layer {layer}" for layer in range(len(parts[0]) - 1))]
    scores = []
    for name, train_features, test_features in zip(names, *parts, strict=True):
        probe = fit_probe(train_features, train_labels, inverse_l2=inverse_l2, seed=seed)
        accuracy = probe.accuracy(test_features, test_labels)
        error = math.sqrt(accuracy * (1 - accuracy) / len(test))
        scores.append(ProbeScore(name, accuracy, error, probe.validation_accuracy, probe.inverse_l2))
    return LinearProbeReport(tuple(scores[1:]), scores[0], len(train), len(test))


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier.

    Attributes:
        classifier: scikit-learn's pipeline of standardisation and logistic regression.
        validation_accuracy: Of the regularization chosen, before the fit on all training rows.
        inverse_l2: That regularization.
    """

    classifier: object
    validation_accuracy: float
    inverse_l2: float

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Share of rows ``(N, D)`` that the classifier gives their label ``(N,)``."""
        return float((self.classifier.predict(features) == labels).mean())  # type: ignore[attr-defined]


def fit_probe(
    features: np.ndarray, labels: np.ndarray, *, inverse_l2: Sequence[float] = INVERSE_L2, seed: int = 0
) -> Probe:
    """Fit one classifier to training rows; one row in five chooses the regularization.

    Args:
        features: Float ``(N, D)``.
        labels: Integers ``(N,)``.
        inverse_l2: Regularizations to choose from. Of equally good ones the strongest is taken.
        seed: Of the choice of validation rows.

    Raises:
        InputError: There are too few rows, or those that are fitted first have one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not inverse_l2 or min(inverse_l2) <= 0:
        raise InputError(f"inverse_l2 is {tuple(inverse_l2)}, expected one number above 0 or more")
    order = np.random.default_rng(seed).permutation(len(labels))
    held_out = math.ceil(VALIDATION_SHARE * len(labels))
    validation, fitted = order[:held_out], order[held_out:]
    if len(np.unique(labels[fitted])) < 2:
        raise InputError(
            f"{len(fitted)} training images are left besides {held_out} for validation, and they have fewer "
            "than 2 classes; give more images"
        )

    def fit(rows: np.ndarray, strength: float) -> Probe:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        classifier.fit(features[rows], labels[rows])
        return Probe(classifier, math.nan, strength)

    accuracies = {
        strength: fit(fitted, strength).accuracy(features[validation], labels[validation])
        for strength in sorted(inverse_l2)
    }
    chosen = max(accuracies, key=lambda strength: accuracies[strength])
    return Probe(fit(order, chosen).classifier, accuracies[chosen], chosen)


@torch.no_grad()
def _features(model: LayeredModel, symbols: Tensor) -> list[np.ndarray]:
    if not isinstance(model, nn.Module):
        return [layer.float().numpy() for layer in model.layer_features(symbols)]
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with evaluating(model):
        return [layer.float().cpu().numpy() for layer in model.layer_features(symbols.to(device))]


def _labels(batch: Batch, what: str) -> np.ndarray:
    if batch.labels is None:
        raise InputError(f"the {what} images have no labels, expected a class for each; choose labelled data")
    if not len(batch):
        raise InputError(f"there are no {what} images, expected at least one")
    return batch.labels.numpy()
