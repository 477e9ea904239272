"""Lookup-free quantization."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rasterwise.errors import InputError
from stage1_vqvae.quantizers.lfq import LFQConfig, batch_entropy, joint, sample_entropy
from tests.quantizer_suite import QuantizerSuite, random_latents


class TestLookupFreeQuantizer(QuantizerSuite):
    """The shared suite."""

    config = LFQConfig(codebook_size=16)


def probabilities(logits: Tensor) -> Tensor:
    """Of every code, by brute force: a softmax of twice the product of latent and signs, where logits are 4 latents."""
    bits = logits.shape[1]
    signs = ((torch.arange(2**bits)[:, None] >> torch.arange(bits)) & 1).to(logits) * 2 - 1
    return (2 * (logits / 4) @ signs.T).softmax(1)


def test_the_nearest_corner_is_taken_and_its_bits_are_the_code() -> None:
    """Of all K vectors of signs, by brute force in float64."""
    quantizer = LFQConfig(codebook_size=16).build()
    latents = random_latents(quantizer)
    quantized = quantizer(latents)
    corners = quantizer.lookup(torch.arange(16).view(1, 1, 1, 16))[0, :, 0].T.double()
    flat = latents.double().movedim(1, 3).flatten(0, 2)
    assert torch.equal(quantized.codes.flatten(), (flat[:, None] - corners[None]).square().sum(2).argmin(1))


def test_the_entropies_are_exact() -> None:
    """Those of the probabilities of all codes, and their gradients, in float64."""
    logits = (3 * torch.randn(50, 5, dtype=torch.float64)).requires_grad_()
    torch.testing.assert_close(joint(logits), probabilities(logits))
    every = probabilities(logits)
    for found, expected in (
        (sample_entropy(logits), torch.special.entr(every).sum(1).mean()),
        (batch_entropy(logits), torch.special.entr(every.mean(0)).sum()),
    ):
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits, retain_graph=True)
        )


def test_extreme_logits_have_finite_entropies() -> None:
    """Nothing to choose, and all latents alike: 0, with finite gradients."""
    logits = torch.full((3, 20), 1e4).requires_grad_()
    loss = sample_entropy(logits) + batch_entropy(logits)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_the_loss_and_the_gradient() -> None:
    """Weighted as the configuration says; gradients pass straight through."""
    config = LFQConfig(16, entropy_weight=0.3, diversity=2.0, entropy_temperature=0.5, commitment_weight=0.7)
    quantizer = config.build()
    latents = random_latents(quantizer).requires_grad_()
    result = quantizer(latents)
    every = probabilities(4 / 0.5 * latents.movedim(1, 3).flatten(0, 2))
    entropies = torch.special.entr(every).sum(1).mean() - 2 * torch.special.entr(every.mean(0)).sum()
    commitment = (latents - latents.sign()).square().mean()
    assert result.auxiliary_loss.item() == pytest.approx(
        (0.3 * entropies + 0.7 * commitment).item(), rel=1e-4
    )
    weights = torch.randn(4, 4, 4, 6)
    (gradient,) = torch.autograd.grad((result.latents * weights).sum(), latents)
    assert torch.equal(gradient, weights)


def test_refusals() -> None:
    """No power of two, too many codes, no temperature."""
    for settings, message in (
        ({"codebook_size": 1000}, "codebook_size is 1000, expected a power of two"),
        ({"codebook_size": 1}, "codebook_size is 1, expected"),
        ({"codebook_size": 2**25}, "at most"),
        ({"entropy_temperature": 0.0}, "entropy_temperature is 0"),
    ):
        with pytest.raises(InputError, match=message):
            LFQConfig(**settings)  # type: ignore[arg-type]
