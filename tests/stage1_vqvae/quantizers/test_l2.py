"""The narrow codebook of vectors of length 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stage1_vqvae.quantizers.l2 import L2QuantizerConfig
from tests.quantizer_suite import QuantizerSuite, random_latents

SMALL = L2QuantizerConfig(codebook_size=12, code_width=4, commitment_weight=0.0)


class TestL2Quantizer(QuantizerSuite):
    """The shared suite."""

    config = L2QuantizerConfig(codebook_size=12, code_width=4)


def test_the_nearest_direction_is_taken() -> None:
    """The largest cosine, by brute force in float64, whatever the length; code vectors have length 1."""
    quantizer = SMALL.build()
    latents = random_latents(quantizer)
    quantizer(latents)
    quantizer.eval()
    codes = quantizer(latents).codes
    flat = F.normalize(latents.double().movedim(1, 3).flatten(0, 2), dim=1)
    assert torch.equal(codes.flatten(), (flat @ quantizer.book.vectors.double().T).argmax(1))
    torch.testing.assert_close(quantizer.book.vectors.norm(dim=1), torch.ones(12))
    for scale in (1e-4, 1e4):
        assert torch.equal(quantizer(scale * latents).codes, codes)


def test_gradients_pass_straight_to_the_directions() -> None:
    """Those of the quantized latents are those of the normalised latents."""
    quantizer = SMALL.build()
    latents = random_latents(quantizer).requires_grad_()
    quantizer(latents.detach())
    weights = torch.randn(4, 4, 4, 6)
    (gradient,) = torch.autograd.grad((quantizer(latents).latents * weights).sum(), latents)
    (expected,) = torch.autograd.grad((F.normalize(latents, dim=1) * weights).sum(), latents)
    torch.testing.assert_close(gradient, expected)


def test_a_step_of_the_moving_averages() -> None:
    """A code vector is the direction of the decayed sum of the normalised latents that took it."""
    quantizer = L2QuantizerConfig(
        codebook_size=4, code_width=4, codebook_decay=0.9, dead_code_threshold=0
    ).build()
    quantizer(random_latents(quantizer))
    sums = quantizer.book.embed_avg[0].double()
    latents = random_latents(quantizer, seed=1)
    codes = quantizer(latents).codes.flatten()
    flat = F.normalize(latents.double().movedim(1, 3).flatten(0, 2), dim=1)
    taken = torch.stack([flat[codes == code].sum(0) for code in range(4)])
    expected = F.normalize(0.9 * sums + 0.1 * taken, dim=1)
    torch.testing.assert_close(quantizer.book.vectors.double(), expected, rtol=1e-5, atol=1e-6)
