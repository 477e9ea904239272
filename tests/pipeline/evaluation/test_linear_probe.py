"""The linear probe finds what is in the features, and looks at test images only to score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.evaluation.linear_probe import LinearProbeReport, ProbeScore, fit_probe, probe_layers
from pixel_baselines.image_gpt.model import ImageGPT
from pixel_baselines.image_gpt.network import ImageGPTConfig
from pixel_baselines.image_gpt.palette import PaletteConfig, PaletteTokenizer
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.data.splits import Batch
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.tokenizers.pixels import PixelTokenizer


class Planted:
    """Features that a test plants for each image, found by the first pixels of the image."""

    def __init__(self, layers: list[Tensor]) -> None:
        self.layers = layers

    def layer_features(self, symbols: Tensor, condition: Condition | None = None) -> list[Tensor]:
        assert condition is None
        rows = symbols[:, 0, 0, 0] * 256 + symbols[:, 0, 0, 1]
        return [layer[rows] for layer in self.layers]


def numbered(first: int, last: int) -> Batch:
    """Images that hold their index, of three classes in turn."""
    rows = torch.arange(first, last)
    images = torch.stack([rows // 256, rows % 256], 1).to(torch.uint8).view(-1, 1, 1, 2)
    return Batch(images, rows % 3)


@pytest.fixture(scope="module")
def digits() -> tuple[Batch, Batch]:
    data = open_images(DataConfig())
    return next(data.train.ordered(10_000)), next(data.test.ordered(10_000))


def test_probes_a_trained_model(digits: tuple[Batch, Batch]) -> None:
    """Layers of an ImageGPT trained for seconds on real digits, by likelihood alone, tell the digits apart."""
    train, test = digits
    tokenizer = PaletteTokenizer(PaletteConfig(8, 1)).fit(train.values)
    torch.manual_seed(0)
    model = ImageGPT(ImageGPTConfig(grid=tokenizer.grid(1, 8, 8), depth=3, width=32, heads=2))
    symbols = tokenizer.encode(train.values)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = -model.log_prob(symbols[torch.randperm(len(symbols))[:64]]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    calls: list[tuple[int, int]] = []
    report = probe_layers(
        model, tokenizer, train, test, inverse_l2=(1e-2, 1.0), progress=lambda *call: calls.append(call)
    )
    assert model.training, "the probe leaves the model in the mode it was in"
    assert calls[-1] == (len(train) + len(test),) * 2
    assert (report.train_size, report.test_size) == (len(train), len(test))
    assert [score.features for score in report.layers] == [f"layer {layer}" for layer in range(4)]
    assert report.layers[report.best_layer].accuracy > 0.6  # chance is 0.1
    assert report.pixels.accuracy > 0.9


def test_accuracy_is_what_the_features_know() -> None:
    """Features that are the class score 1 and features of noise score chance."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.nn.functional.one_hot(torch.arange(900) % 3, 3).float()
    model = Planted([labels, torch.randn(900, 8, generator=generator)])
    known, noise = probe_layers(model, PixelTokenizer(), numbered(0, 600), numbered(600, 900)).layers
    assert known.accuracy == known.validation_accuracy == 1
    assert known.standard_error == 0
    assert 0.2 < noise.accuracy < 0.47
    assert noise.standard_error == pytest.approx((noise.accuracy * (1 - noise.accuracy) / 300) ** 0.5)


def test_never_fits_test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither standardisation nor classifier is fitted on a test row, and every training row is."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaled: set[float] = set()
    sizes: list[int] = []
    fit_scaler, fit_classifier = StandardScaler.fit, LogisticRegression.fit

    def spy_scaler(
        self: StandardScaler, features: np.ndarray, *rest: object, **named: object
    ) -> StandardScaler:
        scaled.update(features[:, 0].tolist())
        return fit_scaler(self, features, *rest, **named)

    def spy_classifier(self: LogisticRegression, features: np.ndarray, *rest: object) -> LogisticRegression:
        # The test rows' numbers lie a thousand deviations from those that were standardised.
        assert np.abs(features).max() < 3
        sizes.append(len(features))
        return fit_classifier(self, features, *rest)

    monkeypatch.setattr(StandardScaler, "fit", spy_scaler)
    monkeypatch.setattr(LogisticRegression, "fit", spy_classifier)
    numbers = torch.cat([torch.arange(50.0), torch.arange(20.0) + 1e6])[:, None]
    train, test = numbered(0, 50), numbered(50, 70)
    report = probe_layers(Planted([numbers]), PixelTokenizer(), train, test, inverse_l2=(0.1, 1.0))
    assert {number for number in scaled if number >= 1} == set(range(1, 50))
    assert sizes == [40, 40, 50] * 2  # two choices on four fifths, then all; raw pixels and one layer
    assert report.train_size == 50


def test_validation_chooses_the_regularization() -> None:
    """The choice is the one that scores best on held-out rows: strong in noise, weak where a fine line needs it."""
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2
    noisy = generator.normal(size=(400, 300))
    noisy[:, 0] += 6 * labels
    wrong = np.where(
        generator.random(400) < 0.25, 1 - labels, labels
    )  # what a weak regularization would learn
    # A narrow class between two wide ones: only a nearly unregularized fit places both of its edges.
    column = np.concatenate([np.linspace(0, 1, 90), np.linspace(1.02, 1.1, 20), np.linspace(1.12, 2, 90)])
    bands = np.repeat([0, 1, 2], [90, 20, 90])
    for features, classes, expected in ((noisy, wrong, 1e-2), (np.stack([column, column**2], 1), bands, 1e4)):
        alone = {strength: fit_probe(features, classes, inverse_l2=(strength,)) for strength in (1e-2, 1e4)}
        chosen = fit_probe(features, classes, inverse_l2=(1e4, 1e-2))
        assert chosen.inverse_l2 == expected
        assert chosen.validation_accuracy == alone[expected].validation_accuracy
        assert chosen.validation_accuracy > min(probe.validation_accuracy for probe in alone.values())


def report_of(accuracies: list[float], validations: list[float]) -> LinearProbeReport:
    layers = tuple(
        ProbeScore(f"layer {layer}", accuracy, 0.01, validation, 0.1)
        for layer, (accuracy, validation) in enumerate(zip(accuracies, validations, strict=True))
    )
    return LinearProbeReport(layers, ProbeScore("raw pixels", 0.5, 0.02, 0.4, 1.0), 1000, 200)


def test_table_and_plot(tmp_path: Path) -> None:
    """The table has a row for the pixels and each layer; the plot is a PNG that the accuracies change."""
    report = report_of([0.25, 0.75, 0.8], [0.2, 0.9, 0.7])
    assert report.best_layer == 1  # by the validation images, not by the test images
    lines = report.table().splitlines()
    assert lines[0] == "1,000 training images, 200 test images"
    assert [line.split("|")[1].strip() for line in lines[4:]] == [
        "raw pixels",
        "layer 0",
        "layer 1",
        "layer 2",
    ]
    assert [float(line.split("|")[2]) for line in lines[4:]] == [0.5, 0.25, 0.75, 0.8]
    first, again = (report.save_plot(tmp_path / "new" / name) for name in ("a.png", "b.png"))
    other = report_of([0.3, 0.7, 0.6], [0.2, 0.9, 0.7]).save_plot(tmp_path / "c.png")
    assert Image.open(first).format == "PNG"
    pixels = [np.asarray(Image.open(path)) for path in (first, again, other)]
    assert np.array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[0], pixels[2])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.png", "b.png"]


def test_refuses_what_cannot_be_probed() -> None:
    """A model without features, images without labels, and too few of them."""
    batch, tokenizer = numbered(0, 30), PixelTokenizer()
    model = Planted([torch.zeros(30, 2)])
    with pytest.raises(InputError, match="offers no features"):
        probe_layers(object(), tokenizer, batch, batch)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="training images have no labels"):
        probe_layers(model, tokenizer, Batch(batch.values), batch)
    with pytest.raises(InputError, match="no test images"):
        probe_layers(model, tokenizer, batch, batch[:0])
    with pytest.raises(InputError, match="fewer than 2 classes"):
        probe_layers(model, tokenizer, batch[:1], batch)
    with pytest.raises(InputError, match="inverse_l2"):
        probe_layers(model, tokenizer, batch, batch, inverse_l2=())
