"""The codebook behind one linear map."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rasterwise.errors import InputError
from stage1_vqvae.quantizers.simvq import SimVQConfig
from tests.quantizer_suite import QuantizerSuite, random_latents


class TestSimVectorQuantizer(QuantizerSuite):
    """The shared suite."""

    config = SimVQConfig(codebook_size=12, code_width=4)


def test_the_nearest_code_is_taken() -> None:
    """By brute force in float64, among the mapped vectors."""
    quantizer = SimVQConfig(codebook_size=32, code_width=4).build()
    latents = random_latents(quantizer)
    codes = quantizer.eval()(latents).codes
    mapped = quantizer.codebook.frozen_codebook.double() @ quantizer.codebook.code_transform.weight.double().T
    flat = latents.double().movedim(1, 3).flatten(0, 2)
    assert torch.equal(codes.flatten(), (flat[:, None] - mapped[None]).square().sum(2).argmin(1))


def test_gradients_pass_straight_through_and_the_loss_moves_the_map() -> None:
    """Latents get the decoder's gradient; the map gets that of the distance to the latents, for all codes."""
    quantizer = SimVQConfig(
        codebook_size=80, code_width=4, codebook_weight=2.0, commitment_weight=0.5
    ).build()
    latents = random_latents(quantizer).requires_grad_()
    weights = torch.randn(4, 4, 4, 6)
    result = quantizer(latents)
    (gradient,) = torch.autograd.grad((result.latents * weights).sum(), latents, retain_graph=True)
    assert torch.equal(gradient, weights)
    vectors = quantizer.lookup(result.codes)
    expected = 2 * F.mse_loss(vectors, latents.detach()) + 0.5 * F.mse_loss(latents, vectors.detach())
    assert result.auxiliary_loss.item() == pytest.approx(expected.item(), rel=1e-5)
    weight = quantizer.codebook.code_transform.weight
    torch.testing.assert_close(
        torch.autograd.grad(result.auxiliary_loss, weight), torch.autograd.grad(expected, weight)
    )
    unused = sorted(set(range(80)) - set(result.codes.unique().tolist()))
    before = quantizer.codebook.codebook.detach()
    (moved,) = torch.autograd.grad(quantizer(latents).auxiliary_loss, weight)
    with torch.no_grad():
        weight -= 0.1 * moved
    assert unused
    assert ((quantizer.codebook.codebook - before)[unused].abs().sum(1) > 0).all()


def test_a_codebook_of_one_is_refused() -> None:
    with pytest.raises(InputError, match="codebook_size is 1"):
        SimVQConfig(codebook_size=1)
