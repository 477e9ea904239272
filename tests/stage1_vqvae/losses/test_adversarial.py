"""The discriminator, its loss and the decoder's, and their balance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rasterwise.errors import InputError
from stage1_vqvae.losses.adversarial import (
    AdversarialConfig,
    AdversarialKind,
    PatchDiscriminator,
    adaptive_weight,
    decoder_loss,
    discriminator_loss,
)

SMALL = AdversarialConfig(discriminator_width=8, discriminator_layers=2)


def test_a_score_is_of_a_patch() -> None:
    """Of 70×70 pixels with three layers, as in the paper; the norms, which average over the image, taken out."""
    discriminator = PatchDiscriminator(1, AdversarialConfig(discriminator_width=8)).double()
    for number, layer in enumerate(discriminator.layers):
        if isinstance(layer, nn.GroupNorm):
            discriminator.layers[number] = nn.Identity()
    images = torch.randn(1, 1, 128, 128, dtype=torch.float64, requires_grad=True)
    scores = discriminator(images)
    assert scores.shape == (1, 1, 14, 14)
    (gradient,) = torch.autograd.grad(scores[0, 0, 7, 7], images)
    rows, columns = gradient[0, 0].nonzero().T
    assert rows.max() - rows.min() + 1 == 70
    assert columns.max() - columns.min() + 1 == 70


def test_scores_do_not_depend_on_the_batch() -> None:
    """So that processes that share a batch compute what one computes."""
    discriminator = PatchDiscriminator(3, SMALL).double()
    images = torch.randn(3, 3, 16, 20, dtype=torch.float64)
    assert torch.allclose(discriminator(images)[1:2], discriminator(images[1:2]), atol=1e-12)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in discriminator.modules())


def test_small_images_are_refused() -> None:
    """At the least size there is one score."""
    discriminator = PatchDiscriminator(1, SMALL)
    assert discriminator(torch.zeros(1, 1, 12, 12)).shape == (1, 1, 1, 1)
    with pytest.raises(
        InputError, match="images are 11×12, but this discriminator needs 12×12; give it fewer --disc"
    ):
        discriminator(torch.zeros(1, 1, 11, 12))


def test_losses_of_known_scores() -> None:
    real, drawn = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    assert discriminator_loss(real, drawn, "hinge").item() == pytest.approx((0.5 + 1) / 2)
    assert decoder_loss(drawn, "hinge").item() == pytest.approx(1)
    expected = -sum(math.log(1 / (1 + math.exp(-score))) for score in (2, 0, 3, -1)) / 4
    assert discriminator_loss(real, drawn, "logistic").item() == pytest.approx(expected)
    expected = -sum(math.log(1 / (1 + math.exp(-score))) for score in (-3, 1)) / 2
    assert decoder_loss(drawn, "logistic").item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
def test_a_discriminator_learns_and_a_decoder_follows(loss: AdversarialKind) -> None:
    """Trained on bright and dark images it tells them apart; its gradient makes dark ones brighter."""
    discriminator = PatchDiscriminator(1, SMALL)
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-3)
    bright, dark = torch.rand(8, 1, 12, 12), -torch.rand(8, 1, 12, 12)
    for _ in range(30):
        optimizer.zero_grad()
        discriminator_loss(discriminator(bright), discriminator(dark), loss).backward()
        optimizer.step()
    assert discriminator(bright).min() > discriminator(dark).max()
    dark.requires_grad_()
    (gradient,) = torch.autograd.grad(decoder_loss(discriminator(dark), loss), dark)
    with torch.no_grad():
        assert discriminator(dark - 10 * gradient / gradient.norm()).mean() > discriminator(dark).mean()


def weighted(layer: nn.Linear, inputs: torch.Tensor, highest: float = 1e4) -> torch.Tensor:
    outputs = layer(inputs)
    parameter = layer.weight
    assert isinstance(parameter, nn.Parameter)
    return adaptive_weight(outputs.square().mean(), 7 * outputs.abs().mean(), parameter, highest)


def test_the_adaptive_weight_balances_the_gradients() -> None:
    """Weighted, both losses have gradients of one norm at the last layer; no gradient is left behind."""
    layer, inputs = nn.Linear(4, 3), torch.randn(8, 4)
    weight = weighted(layer, inputs)
    assert not weight.requires_grad
    assert layer.weight.grad is None
    outputs = layer(inputs)
    norms = [
        torch.autograd.grad(loss, layer.weight, retain_graph=True)[0].norm()
        for loss in (outputs.square().mean(), 7 * weight * outputs.abs().mean())
    ]
    assert norms[0].item() == pytest.approx(norms[1].item(), rel=1e-3)
    assert weighted(layer, inputs, highest=1e-3).item() == pytest.approx(1e-3)
    loss = outputs.square().mean() + weight * outputs.abs().mean()
    loss.backward()  # whose graph was kept


def test_processes_share_the_adaptive_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that have a half of the batch each find the weight of the whole batch."""
    layer, inputs = nn.Linear(4, 3), torch.randn(8, 4)
    alone = weighted(layer, inputs)
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda gradients: sent.append(gradients.clone()))
    weighted(layer, inputs[:4])
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda gradients: gradients.add_(sent[0]))
    assert weighted(layer, inputs[4:]).item() == pytest.approx(alone.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"adversarial_weight": -1.0}, "adversarial_weight is -1.0, expected 0 or more"),
        ({"adversarial_start": -1}, "adversarial_start is -1, expected 0 or more"),
        ({"discriminator_width": 12}, "discriminator_width is 12, expected a multiple of 8"),
        ({"discriminator_layers": 0}, "discriminator_layers is 0, expected 1 or more"),
    ],
)
def test_configurations_that_are_refused(flags: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdversarialConfig(**flags)  # type: ignore[arg-type]
