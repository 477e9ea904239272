"""The objective of a learned tokenizer with a perceptual and an adversarial loss."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rasterwise.data.splits import Batch
from rasterwise.measure.frozen_network import FrozenNetwork
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.gradient_checkpointing import checkpoint_layers
from rasterwise.training.step import TrainingStep
from stage1_vqvae import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig
from stage1_vqvae.losses import perceptual
from stage1_vqvae.losses.adversarial import AdversarialConfig, decoder_loss
from stage1_vqvae.losses.perceptual import PerceptualConfig
from stage1_vqvae.objective import LearnedTokenizerObjective
from tests.rasterwise.training.test_loop import SHORT, run_training
from tests.stage1_vqvae.images import random_images

ADVERSARIAL = AdversarialConfig(
    adversarial_weight=0.5, adversarial_start=4, discriminator_width=8, discriminator_layers=1
)
IMAGES = random_images(height=8, width=8)


def vqgan(**settings: Any) -> LearnedTokenizerObjective:
    """A small one; the discriminator takes part from the fifth step on."""
    torch.manual_seed(0)
    config = VQVAEConfig(
        factor=2,
        quantizer=VectorQuantizerConfig(codebook_size=8, code_width=4),
        autoencoder=ConvolutionalConfig(width=16, blocks=1),
    )
    settings = {"adversarial": ADVERSARIAL, **settings}
    return LearnedTokenizerObjective(VQVAE(config), **settings)


def at_step(objective: LearnedTokenizerObjective, step: int) -> LearnedTokenizerObjective:
    for one in (objective, *objective.adversaries):
        one.begin_step(step, 8)
    return objective


def gradients(module: nn.Module) -> list[torch.Tensor | None]:
    return [parameter.grad for parameter in module.parameters()]


def test_neither_leaves_a_gradient_in_the_other() -> None:
    """The tokenizer's loss trains the tokenizer alone, the discriminator's loss the discriminator alone."""
    objective = at_step(vqgan(), 4)
    (discriminator,) = objective.adversaries
    objective(Batch(IMAGES)).total.backward()
    assert all(gradient is None for gradient in gradients(discriminator))
    trained = [gradient.clone() for gradient in gradients(objective) if gradient is not None]
    assert len(trained) == len(list(objective.parameters()))
    discriminator(Batch(IMAGES)).total.backward()
    assert all(map(torch.equal, trained, gradients(objective)))
    assert all(weight.grad.any() for weight in discriminator.parameters() if weight.ndim > 1)


def test_the_adversarial_loss_pulls_as_hard_as_the_error() -> None:
    """At the decoder's last layer, times its weight; before its start it does not pull at all."""
    objective = vqgan().double()
    objective.adversaries[0].double()
    objective.model(IMAGES)  # starts the codebook, which learns nothing more in evaluation mode
    objective.eval()
    last = objective.model.decoder.last_weight
    for step in (3, 4):
        at_step(objective, step)
        losses = objective(Batch(IMAGES))
        error = objective.model(IMAGES).error(IMAGES).mean()
        (whole,) = torch.autograd.grad(losses.total, last, retain_graph=True)
        (plain,) = torch.autograd.grad(error, last)
        if step < ADVERSARIAL.adversarial_start:
            assert "adversarial_loss" not in losses.shown
            torch.testing.assert_close(whole, plain)
        else:
            assert ((whole - plain).norm() / plain.norm()).item() == pytest.approx(0.5, rel=0.02)
            mean = objective.model(IMAGES).mean
            scores = objective.adversaries[0].frozen_scores(mean)
            assert losses.shown["adversarial_loss"] == pytest.approx(
                decoder_loss(scores, "hinge").item(), rel=1e-5
            )


def test_a_discriminator_waits_for_its_start() -> None:
    """Its gradient is 0 before; then it learns to give images the higher score."""
    objective = vqgan()
    config = TrainingConfig(steps=40, batch_size=4, warmup_steps=0, learning_rate=3e-3, device="cpu")
    step = TrainingStep(objective, config, start_accelerator(config))
    values = [step(Batch(IMAGES), number) for number in range(40)]
    assert [value["adversary_1_gradient_norm"] == 0 for value in values[:5]] == [True] * 4 + [False]
    last = values[-1]
    assert last["adversary_1_score_of_images"] > last["adversary_1_score_of_reconstructions"]


@pytest.mark.parametrize(
    "settings",
    [{"precision": "bf16", "accumulate": 2}, {"gradient_checkpointing": True}],
    ids=["bf16 in parts", "gradient checkpointing"],
)
def test_a_stopped_run_ends_in_the_same_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    """Stopped before the discriminator takes part, and after: both networks and optimizers, bit for bit."""
    config = dataclasses.replace(SHORT, **settings)
    run_training(vqgan(), tmp_path / "whole", config)
    for stop in (2, 4):
        run_training(vqgan(), tmp_path / "parts", config, stop_after=stop)
    run_training(vqgan(), tmp_path / "parts", config)
    for name in ("model/model.safetensors", "checkpoints/step-00000008/state.safetensors", "metrics.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (tmp_path / "whole" / "model-best").exists()


def test_gradient_checkpointing_changes_no_gradient() -> None:
    """Though the adaptive weight takes gradients within the forward pass."""
    found = []
    for checkpointed in (False, True):
        objective = at_step(vqgan(), 4)
        if checkpointed:
            checkpoint_layers(objective.model)
        objective.train()(Batch(IMAGES)).total.backward()
        found.append([gradient.clone() for gradient in gradients(objective) if gradient is not None])
    assert len(found[0]) == len(found[1]) > 0
    assert all(map(torch.equal, *found))


def test_the_perceptual_loss_counts_by_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is trained on, but neither trained nor saved."""
    network = FrozenNetwork("small", 8, [nn.Conv2d(3, 4, 3)], nn.Identity(), (0.5,), (0.5,))
    monkeypatch.setattr(perceptual, "open_frozen_network", lambda _: network)
    config = PerceptualConfig(perceptual_weight=2.0, perceptual_stages=1, perceptual_side=16)
    plain, objective = vqgan(adversarial=None), vqgan(adversarial=None, perceptual=config)
    for one in (plain, objective):
        torch.manual_seed(0)  # k-means draws
        one.model(IMAGES)
    losses = objective.eval()(Batch(IMAGES))
    expected = plain.eval()(Batch(IMAGES)).total + 2 * losses.shown["perceptual_loss"]
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert losses.shown["perceptual_loss"] > 0
    assert objective.state_dict().keys() == plain.state_dict().keys()
    assert len(list(objective.parameters())) == len(list(plain.parameters()))
    assert (plain.criterion, objective.criterion) == ("mse", "")
