"""Frozen networks: what they hold, and distances in their features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rasterwise.measure.frozen_network import FrozenNetwork, perceptual_distance, resized_to


def small() -> FrozenNetwork:
    stages = [
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, 8, 2, stride=2)),
    ]
    return FrozenNetwork("small", 8, stages, nn.Conv2d(8, 6, 1), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def test_nothing_in_it_is_trained_or_saved() -> None:
    """No parameters, an empty state dict, evaluation mode for ever; as a part of a module that is trained, too."""
    whole = nn.ModuleDict({"network": small(), "trained": nn.Linear(2, 2)})
    whole.train()
    assert not whole["network"].training
    assert not any(part.training for part in whole["network"].modules())
    assert [name for name, _ in whole.named_parameters()] == ["trained.weight", "trained.bias"]
    assert list(whole.state_dict()) == ["trained.weight", "trained.bias"]
    whole.load_state_dict(whole.state_dict())
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(whole["network"](images).pooled, whole["network"](images).pooled)
    assert whole.double()["network"](images.double()).pooled.dtype == torch.float64


def test_gradients_pass_through_to_the_images() -> None:
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    features = small()(images)
    features.pooled.sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()


def test_scaling_and_grey() -> None:
    """[-1, 1] becomes [0, 1], then standardised by channel; a grey image is three equal channels."""
    network = FrozenNetwork("identity", 8, [nn.Identity()], nn.Identity(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    (seen,) = network.maps(images, 1)
    expected = ((images + 1) / 2 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.3, 0.4]
    ).view(3, 1, 1)
    assert torch.allclose(seen, expected)
    assert torch.equal(seen, network.maps(images.expand(-1, 3, -1, -1), 1)[0])


def test_the_first_maps_alone() -> None:
    """They are those of the whole network; later stages are not computed."""
    network = small()
    images = torch.rand(2, 3, 8, 8)
    whole = network(images).maps
    network.stages[1] = nn.Module()  # which has no forward
    (first,) = network.maps(images, 1)
    assert torch.equal(first, whole[0])


def test_perceptual_distance_of_known_vectors() -> None:
    """0 for the same directions at any length, 2 for orthogonal ones, 4 for opposite ones; the mean over stages."""
    one = torch.zeros(3, 2, 2, 2, dtype=torch.float64)
    one[:, 0] = 5
    other = torch.zeros_like(one)
    other[0, 0], other[1, 1], other[2, 0] = 0.1, 3, -7
    assert torch.allclose(perceptual_distance([one], [other]), torch.tensor([0.0, 2, 4]).double())
    assert torch.allclose(perceptual_distance([one, one], [other, one]), torch.tensor([0.0, 1, 2]).double())
    assert perceptual_distance([one.bfloat16()], [other.bfloat16()]).dtype == torch.float32


def test_perceptual_distance_has_finite_gradients() -> None:
    """Also where features are all zero."""
    one = torch.zeros(1, 4, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(perceptual_distance([one], [torch.rand(1, 4, 2, 2)]).sum(), one)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("size", [(4, 4), (16, 12), (8, 8)])
def test_resized_to(size: tuple[int, int]) -> None:
    """A flat image stays flat; the same size is the same image."""
    images = torch.full((1, 3, 8, 8), 0.25)
    assert torch.allclose(resized_to(images, *size), torch.full((1, 3, *size), 0.25))
    assert resized_to(images, 8, 8) is images
