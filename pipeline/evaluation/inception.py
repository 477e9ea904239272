"""Fréchet distances in the features of torchvision's Inception v3, whose weights the user brings as a file."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.evaluation.frechet import Distances, distances_in
from rasterwise.errors import InputError
from rasterwise.files import load_tensors
from rasterwise.models.pretrained import load_weights

BATCH = 16


def open_inception(path: Path) -> nn.Module:
    """torchvision's inception_v3 up to its 2048 pooled features.

    Args:
        path: Its ImageNet weights as safetensors. Nothing here unpickles: convert a .pth once, with
            ``safetensors.torch.save_file(torch.load(pth, weights_only=True), path)``.

    Raises:
        InputError: The file is absent, or holds other weights.
    """
    from torchvision.models import inception_v3

    if path.suffix != ".safetensors":
        raise InputError(
            f"inception weights {path} are no .safetensors file; convert them, since nothing here unpickles"
        )
    weights = {
        name: tensor for name, tensor in load_tensors(path).items() if not name.startswith("AuxLogits.")
    }
    network = inception_v3(weights=None, aux_logits=False, init_weights=False)
    load_weights(network, weights, path, "torchvision's inception_v3")
    network.fc = nn.Identity()
    return network.eval()


@torch.no_grad()
def inception_features(network: nn.Module, images: Tensor) -> Tensor:
    """uint8 ``(B, C, H, W)`` to float64 ``(B, 2048)``."""
    parts = []
    for part in images.split(BATCH):
        scaled = part.expand(-1, 3, -1, -1).float() / 127.5 - 1
        large = F.interpolate(scaled, size=(299, 299), mode="bilinear", align_corners=False, antialias=True)
        parts.append(network(large).double())
    return torch.cat(parts)


def inception_distances(path: Path, reference: Tensor, held_out: Tensor, drawn: Tensor) -> Distances | None:
    """As ``frechet.distances``, in the features of Inception."""
    network = open_inception(path)
    return distances_in(lambda images: inception_features(network, images), reference, held_out, drawn)
