"""The codebook of moving averages."""

from __future__ import annotations

import pytest
import torch

from rasterwise.errors import InputError
from stage1_vqvae.quantizers.vector import VectorQuantizer, VectorQuantizerConfig
from tests.quantizer_suite import QuantizerSuite, random_latents


class TestVectorQuantizer(QuantizerSuite):
    """The shared suite."""

    config = VectorQuantizerConfig(codebook_size=12, code_width=4)


def small(**settings: float) -> VectorQuantizer:
    return VectorQuantizerConfig(codebook_size=4, code_width=2, **settings).build()  # type: ignore[arg-type]


def test_the_nearest_code_is_taken() -> None:
    """By brute force in float64."""
    quantizer = VectorQuantizerConfig(codebook_size=32, code_width=8).build()
    latents = random_latents(quantizer, count=16)
    quantizer(latents)
    codes = quantizer.eval()(latents).codes
    flat = latents.double().movedim(1, 3).flatten(0, 2)
    distances = (flat[:, None] - quantizer.book.vectors.double()[None]).square().sum(2)
    assert torch.equal(codes.flatten(), distances.argmin(1))


def test_gradients_pass_straight_through() -> None:
    """Those of the quantized latents are those of the latents."""
    quantizer = small(commitment_weight=0.0)
    latents = random_latents(quantizer).requires_grad_()
    quantizer(latents.detach())
    weights = torch.randn(4, 2, 4, 6)
    (quantizer(latents).latents * weights).sum().backward()
    assert latents.grad is not None
    assert torch.equal(latents.grad, weights)


def test_a_step_of_the_moving_averages() -> None:
    """Counts and sums decay, and the codebook is their quotient (with the counts smoothed), in float64 by hand."""
    quantizer = small(codebook_decay=0.9, dead_code_threshold=0.0)
    quantizer(random_latents(quantizer))
    codebook = quantizer.book
    counts, sums = codebook.cluster_size[0].double(), codebook.embed_avg[0].double()
    latents = random_latents(quantizer, seed=1)
    codes = quantizer(latents).codes.flatten()
    flat = latents.double().movedim(1, 3).flatten(0, 2)
    for code in range(4):
        mine = flat[codes == code]
        counts[code] = 0.9 * counts[code] + 0.1 * len(mine)
        sums[code] = 0.9 * sums[code] + 0.1 * mine.sum(0)
    smoothed = (counts + 1e-5) / (counts.sum() + 4e-5) * counts.sum()
    torch.testing.assert_close(codebook.cluster_size[0].double(), counts, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        quantizer.book.vectors.double(), sums / smoothed[:, None], rtol=1e-5, atol=1e-6
    )


def test_a_batch_in_parts_teaches_what_the_whole_does() -> None:
    """Parts that have more to come are added up: the codebook is that of one batch."""
    whole, parts = (small(codebook_decay=0.9, dead_code_threshold=0.0) for _ in range(2))
    whole(random_latents(whole))
    parts.load_state_dict(whole.state_dict())
    latents = random_latents(whole, seed=1)
    whole(latents)
    for number, part in enumerate(latents.split(1)):
        parts(part, more_to_come=number < 3)
    torch.testing.assert_close(parts.book.vectors, whole.book.vectors)


def test_dead_codes_are_renewed() -> None:
    """A code that nothing is near is replaced by a latent of the batch."""
    quantizer = small(codebook_decay=0.5)
    latents = torch.randn(8, 2, 4, 4)
    quantizer(latents)
    quantizer.book.embed.data[0, 0] = 1000.0
    for _ in range(20):
        quantizer(latents)
    assert quantizer.book.vectors.abs().max() < 10
    assert len(quantizer(latents).codes.unique()) == 4


def test_the_auxiliary_loss_is_the_commitment() -> None:
    """β times the mean squared distance of latents to their codes, as the codebook was when they were looked up."""
    quantizer = small(commitment_weight=0.5, dead_code_threshold=0.0)
    latents = torch.randn(8, 2, 4, 4)
    quantizer(latents)
    result = quantizer(latents)
    distance = (result.latents - latents).square().mean().item()
    assert result.auxiliary_loss.item() == pytest.approx(0.5 * distance, rel=1e-5)


def test_refusals() -> None:
    """An unfitted codebook, and one of a single code."""
    with pytest.raises(InputError, match="has not been fitted"):
        small().eval()(torch.zeros(1, 2, 1, 1))
    with pytest.raises(InputError, match="codebook_size is 1"):
        VectorQuantizerConfig(codebook_size=1)
