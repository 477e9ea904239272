"""The perceptual loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rasterwise.errors import InputError
from rasterwise.measure.frozen_network import FrozenNetwork, perceptual_distance
from stage1_vqvae.losses.perceptual import PerceptualConfig, PerceptualLoss


def network() -> FrozenNetwork:
    stages = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)]
    return FrozenNetwork("small", 8, stages, nn.Identity(), (0.5,), (0.5,))


def test_gradients_reach_the_reconstructions_alone() -> None:
    """And nothing in it is a parameter or in a state dict."""
    loss = PerceptualLoss(PerceptualConfig(perceptual_stages=2, perceptual_side=0), network())
    images, drawn = torch.rand(2, 2, 3, 8, 8).requires_grad_()
    found = loss(drawn, images)
    assert found.shape == (2,)
    assert (found > 0).all()
    assert torch.autograd.grad(found.sum(), drawn, retain_graph=True)[0].abs().max() > 0
    assert torch.autograd.grad(found.sum(), images, allow_unused=True) == (None,)
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}


@pytest.mark.parametrize(("side", "seen"), [(0, 6), (6, 6), (7, 12), (13, 18)])
def test_small_images_are_enlarged(side: int, seen: int) -> None:
    """By the least whole factor that reaches the side; larger ones stay as they are."""
    one = network()
    loss = PerceptualLoss(PerceptualConfig(perceptual_stages=1, perceptual_side=side), one)
    drawn, images = torch.rand(2, 1, 3, 6, 8)
    sizes: list[tuple[int, int]] = []
    one.stages[0].register_forward_hook(lambda _, inputs, __: sizes.append(tuple(inputs[0].shape[-2:])))
    loss(drawn, images)
    assert sizes == [(seen, seen * 8 // 6)] * 2
    if side == 0:
        expected = perceptual_distance(one.maps(drawn, 1), one.maps(images, 1))
        assert torch.allclose(loss(drawn, images), expected)


def test_noise_is_further_the_more_there_is() -> None:
    """In the network that trains here by default, of small images in colour and in grey."""
    pytest.importorskip("efficientnet_lite_pytorch")
    loss = PerceptualLoss(PerceptualConfig())
    ramp = torch.linspace(-0.8, 0.8, 32).expand(1, 1, 32, 32)
    for images in (ramp, torch.cat([ramp, -ramp, ramp.transpose(2, 3)], 1)):
        noise = torch.randn_like(images)
        distances = [loss(images + share * noise, images).item() for share in (0, 0.02, 0.1, 0.5)]
        assert distances[0] == pytest.approx(0, abs=1e-6)
        assert distances == sorted(distances)
        assert distances[3] > 0.1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"perceptual_weight": -1.0}, "perceptual_weight is -1.0, expected 0 or more"),
        ({"perceptual_stages": 0}, "perceptual_stages is 0"),
        ({"perceptual_stages": 6}, "perceptual_stages is 6, expected at most 5"),
    ],
)
def test_configurations_that_are_refused(flags: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PerceptualConfig(**flags)  # type: ignore[arg-type]
