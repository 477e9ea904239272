"""Gumbel-softmax."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rasterwise.data.splits import Batch
from rasterwise.errors import InputError
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.step import TrainingStep
from stage1_vqvae import VQVAE, ConvolutionalConfig, VQVAEConfig
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage1_vqvae.quantizers.gumbel import GumbelQuantizerConfig
from stage1_vqvae.quantizers.quantizer import Quantizer
from tests.quantizer_suite import QuantizerSuite, random_latents
from tests.stage1_vqvae.images import random_images

SMALL = GumbelQuantizerConfig(codebook_size=12, code_width=4)


class TestGumbelQuantizer(QuantizerSuite):
    """The shared suite."""

    config = SMALL

    def latents_of(self, quantizer: Quantizer, codes: Tensor) -> Tensor:
        """Logits that are largest at the codes."""
        return torch.nn.functional.one_hot(codes[:, 0], 12).movedim(-1, 1).double()

    def test_training_quantizes_alike(self) -> None:
        """Codes are drawn by their probabilities, and the latents are the vectors of those that were drawn."""
        quantizer = self.started().train()
        latents = torch.randn(12).view(1, 12, 1, 1).expand(1, 12, 100, 200)
        quantized = quantizer(latents)
        torch.testing.assert_close(quantized.latents, quantizer.lookup(quantized.codes))
        shares = torch.bincount(quantized.codes.flatten(), minlength=12) / 20_000
        torch.testing.assert_close(shares, latents[0, :, 0, 0].softmax(0), atol=0.02, rtol=0)


def gumbel(shape: tuple[int, ...], seed: int) -> Tensor:
    """The noise that the quantizer draws after this seed."""
    torch.manual_seed(seed)
    return -torch.empty(shape, dtype=torch.float64).exponential_().log()


@pytest.mark.parametrize("relaxed", [False, True])
def test_the_gradient_is_that_of_the_relaxed_mixture(relaxed: bool) -> None:
    """Softmax((logits + noise) / temperature) times the codebook, forward as well where it is relaxed."""
    config = GumbelQuantizerConfig(codebook_size=12, code_width=4, relaxed=relaxed, temperature=0.7)
    quantizer = config.build().double()
    latents = random_latents(quantizer).double().requires_grad_()
    noise = gumbel((4, 24, 12), seed=1)
    torch.manual_seed(1)
    result = quantizer(latents)
    flat = latents.flatten(2).transpose(1, 2)
    mixture = (((flat + noise) / 0.7).softmax(-1) @ quantizer.codebook).transpose(1, 2).unflatten(2, (4, 6))
    weights = torch.randn(4, 4, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((result.latents * weights).sum(), latents),
        torch.autograd.grad((mixture * weights).sum(), latents),
    )
    assert torch.equal(result.codes.flatten(), (flat + noise).argmax(-1).flatten())
    expected = mixture if relaxed else quantizer.lookup(result.codes)
    torch.testing.assert_close(result.latents, expected)


def test_the_auxiliary_loss_is_the_divergence_from_the_uniform_distribution() -> None:
    """log K less the entropy, averaged over sites and weighted: 0 for equal logits, log K for one that is sure."""
    quantizer = GumbelQuantizerConfig(codebook_size=12, code_width=4, kl_weight=0.5).build()
    latents = random_latents(quantizer)
    entropy = torch.distributions.Categorical(logits=latents.movedim(1, 3)).entropy().mean().item()
    assert quantizer(latents).auxiliary_loss.item() == pytest.approx(0.5 * (math.log(12) - entropy), rel=1e-5)
    assert quantizer(0 * latents).auxiliary_loss.item() == pytest.approx(0, abs=1e-6)
    assert quantizer(1e4 * latents).auxiliary_loss.item() == pytest.approx(0.5 * math.log(12), rel=1e-5)


def test_the_temperature_is_annealed() -> None:
    """From the first to the final one, along half a cosine; a mixture becomes a draw."""
    quantizer = GumbelQuantizerConfig(relaxed=True, temperature=1.0, final_temperature=0.2).build()
    temperatures = []
    for share in (0.0, 0.25, 0.5, 1.0):
        quantizer.anneal(share)
        temperatures.append(quantizer.temperature.item())
    assert temperatures == pytest.approx([1.0, 0.2 + 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.2])


def test_the_weight_of_the_divergence_rises() -> None:
    """From 0 to its own in the warm-up, along half a cosine; where there is none it is there at once."""
    for warmup, expected in ((0.5, [0, 0.5, 1, 1]), (0.0, [1, 1, 1, 1])):
        quantizer = GumbelQuantizerConfig(codebook_size=12, kl_weight=2.0, kl_warmup=warmup).build()
        latents = random_latents(quantizer)
        whole = quantizer(latents).auxiliary_loss.item()
        shares = []
        for share in (0.0, 0.25, 0.5, 1.0):
            quantizer.anneal(share)
            shares.append(quantizer(latents).auxiliary_loss.item() / whole)
        assert shares == pytest.approx(expected, abs=1e-6)


def test_a_training_anneals() -> None:
    """Every step is taken at the temperature that follows from its number."""
    model = VQVAE(VQVAEConfig(factor=2, autoencoder=ConvolutionalConfig(width=16, blocks=1), quantizer=SMALL))
    temperatures = []
    model.quantizer.register_forward_pre_hook(
        lambda module, _: temperatures.append(module.temperature.item())  # type: ignore[attr-defined]
    )
    config = TrainingConfig(steps=2, batch_size=4, accumulate=2, device="cpu")
    train_step = TrainingStep(LearnedTokenizerObjective(model), config, start_accelerator(config))
    for step in range(2):
        train_step(Batch(random_images()), step)
    half = (1 + 1 / 16) / 2
    assert temperatures == pytest.approx([1.0, 1.0, half, half])


def test_refusals() -> None:
    """One code, and temperatures that are none."""
    for settings, message in (
        ({"codebook_size": 1}, "codebook_size is 1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"final_temperature": math.nan}, "final_temperature is nan"),
    ):
        with pytest.raises(InputError, match=message):
            GumbelQuantizerConfig(**settings)  # type: ignore[arg-type]
