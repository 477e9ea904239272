"""Distances between images in the features of EfficientNet-Lite2, which trains nothing here."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.evaluation.frechet import Distances, distances_in
from rasterwise.images import to_unit
from rasterwise.measure.frozen_network import FrozenNetwork, resized_to

BATCH = 16
SMALL = 64
"""Images of up to 64×64 are enlarged to half the side that the network was trained on. That costs a quarter, and told
apart blurred, noisy and real photographs nearly as well as the full side."""


def scaled_for(network: FrozenNetwork, images: Tensor) -> Tensor:
    """uint8 images ``(B, C, H, W)`` as the network takes them: float, square, in [-1, 1]."""
    side = network.side // 2 if max(images.shape[-2:]) <= SMALL else network.side
    return resized_to(to_unit(images).to(network.mean.device), side, side)


@torch.no_grad()
def network_features(network: FrozenNetwork, images: Tensor) -> Tensor:
    """uint8 images ``(N, C, H, W)`` to their pooled features, float64 ``(N, F)`` on the CPU."""
    parts = [network(scaled_for(network, part)).pooled.double().cpu() for part in images.split(BATCH)]
    return torch.cat(parts)


def network_distances(
    network: FrozenNetwork, reference: Tensor, held_out: Tensor, drawn: Tensor
) -> Distances | None:
    """As ``frechet.distances``, in the features of a frozen network."""
    return distances_in(lambda images: network_features(network, images), reference, held_out, drawn)
