"""Everything that is measured of a tokenizer."""

from __future__ import annotations

import dataclasses
import functools
import sys

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from pipeline.evaluation import reconstruction
from pipeline.evaluation.frechet import frechet_distance
from pipeline.evaluation.inception import inception_features
from pipeline.evaluation.network_features import network_distances, network_features, scaled_for
from pipeline.evaluation.precision_recall import precision_recall
from pipeline.evaluation.reconstruction import evaluate_reconstruction, reconstruction_distances
from pipeline.evaluation.ssim import structural_similarity
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.indexed import tensor_split
from rasterwise.errors import InputError
from rasterwise.measure.frozen_network import FrozenNetwork, perceptual_distance
from rasterwise.tokenizers.pixels import PixelTokenizer
from stage1_vqvae import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig


def network() -> FrozenNetwork:
    """A small one, of random weights."""
    stages = [nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)]
    return FrozenNetwork("small", 24, stages, nn.ReLU(), (0.5,), (0.5,))


def smooth(count: int, side: int = 12) -> torch.Tensor:
    noise = torch.rand(count, 1, 3, 3)
    return (nn.functional.interpolate(noise, side, mode="bilinear") * 255).to(torch.uint8)


@functools.cache
def digits() -> ImageData:
    return open_images(DataConfig())


def data(side: int = 12) -> ImageData:
    train, test = tensor_split(smooth(40, side)), tensor_split(smooth(21, side))
    return dataclasses.replace(digits(), train=train, test=test, shape=(1, side, side))


def tokenizer() -> VQVAE:
    quantizer = VectorQuantizerConfig(codebook_size=8, code_width=4)
    model = VQVAE(
        VQVAEConfig(factor=2, quantizer=quantizer, autoencoder=ConvolutionalConfig(width=16, blocks=1))
    )
    model(smooth(8))
    return model.eval()


def test_scaled_for() -> None:
    """Up to 64×64 half the network's side, above the whole of it; uint8 to [-1, 1]."""
    frozen = network()
    white = torch.full((2, 1, 64, 48), 255, dtype=torch.uint8)
    assert torch.allclose(scaled_for(frozen, white), torch.ones(2, 1, 12, 12))
    assert scaled_for(frozen, white.repeat(1, 1, 2, 1)).shape == (2, 1, 24, 24)


def test_network_distances() -> None:
    """Held-out images of the same kind are nearer than noise; features do not depend on how images are batched."""
    frozen, images = network(), smooth(60)
    found = network_distances(frozen, images[:40], images[40:], torch.randint(256, (20, 1, 12, 12)).byte())
    assert found is not None
    assert found.images == 20
    assert found.drawn > 3 * found.floor
    features = network_features(frozen, images)
    assert features.dtype == torch.float64
    assert torch.allclose(features[33:34], network_features(frozen, images[33:34]), atol=1e-6)


def test_distances_are_those_of_originals_and_reconstructions() -> None:
    """Each by its own function, on all test images and as many training images."""
    frozen, model, images = network(), tokenizer(), data()
    found = reconstruction_distances(model, images, frozen, Accelerator(cpu=True))
    originals = next(iter(images.test.ordered(21))).values
    train = next(iter(images.train.ordered(21))).values
    drawn = model.reconstruct(originals).images
    a, b, c = (network_features(frozen, one) for one in (originals, drawn, train))
    maps = [frozen(scaled_for(frozen, one)).maps for one in (originals, drawn)]
    shares = precision_recall(a, b)
    assert found == pytest.approx(
        {
            "images": 21,
            "perceptual_distance": perceptual_distance(*maps).mean().item(),
            "frechet_distance": frechet_distance(b, a),
            "frechet_distance_of_train_images": frechet_distance(c, a),
            "precision": shares.precision,
            "recall": shares.recall,
        },
        rel=1e-4,
        abs=1e-6,
    )


def test_few_images_have_a_perceptual_distance_alone() -> None:
    found = reconstruction_distances(tokenizer(), data(), network(), Accelerator(cpu=True), images=15)
    assert found.keys() == {"images", "perceptual_distance"}
    assert found["images"] == 15


def test_the_whole_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSIM over the whole split; distances with the network's name; none where none are asked for."""
    monkeypatch.setattr(reconstruction, "open_frozen_network", lambda _: network())
    model, images = tokenizer(), data()
    report = evaluate_reconstruction(model, images, batch_size=8, distance_images=17)
    originals = next(iter(images.test.ordered(21))).values
    similarity = structural_similarity(originals, model.reconstruct(originals).images)
    assert report["ssim"] == pytest.approx(similarity.mean().item(), rel=1e-6)
    assert report["items"] == 21
    assert report["position_entropy"]["images"] == 21
    assert (report["distances"]["network"], report["distances"]["images"]) == ("small", 17)
    assert "distances" not in evaluate_reconstruction(model, images, distance_images=0)
    assert "ssim" not in evaluate_reconstruction(model, data(side=8), distance_images=0)


class Pooled(nn.Module):
    """In place of Inception: 5 features of images at 299×299, in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Linear(300, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (3, 299, 299)
        assert images.abs().max() <= 1
        return self.mixing(nn.functional.avg_pool2d(images, 29).flatten(1))


def test_distances_in_inception() -> None:
    """Beside those of the other network, under a name of their own; each by its own function."""
    model, images, inception = tokenizer(), data(), Pooled()
    report = evaluate_reconstruction(model, images, distance_images=17, inception=inception)
    originals = next(iter(images.test.ordered(17))).values
    train = next(iter(images.train.ordered(17))).values
    a, b, c = (
        inception_features(inception, one) for one in (originals, model.reconstruct(originals).images, train)
    )
    shares = precision_recall(a, b)
    assert report["inception_distances"] == pytest.approx(
        {
            "images": 17,
            "frechet_distance": frechet_distance(b, a),
            "frechet_distance_of_train_images": frechet_distance(c, a),
            "precision": shares.precision,
            "recall": shares.recall,
        },
        rel=1e-4,
        abs=1e-6,
    )
    assert "fid" not in str(report).lower()
    assert "inception_distances" not in evaluate_reconstruction(
        model, images, distance_images=0, inception=inception
    )


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """All else is measured, and a line says what to install."""
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    report = evaluate_reconstruction(tokenizer(), data())
    assert "install it with pip install" in report["distances"]["not_measured"]
    assert report["psnr_db"] > 0


def test_a_tokenizer_without_reconstruction_is_refused() -> None:
    with pytest.raises(InputError, match="kind 'pixels' has no reconstruction to measure"):
        evaluate_reconstruction(PixelTokenizer(), data())
