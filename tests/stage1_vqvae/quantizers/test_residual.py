"""Residual quantization."""

from __future__ import annotations

import pytest
import torch

from rasterwise.errors import InputError
from stage1_vqvae.quantizers.residual import ResidualQuantizer, ResidualQuantizerConfig
from tests.quantizer_suite import QuantizerSuite, random_latents


class TestResidualQuantizer(QuantizerSuite):
    """The shared suite."""

    config = ResidualQuantizerConfig(codebook_size=8, code_width=4, depth=3)

    def test_every_code_is_decoded_and_found_again(self) -> None:
        """Of every codebook alone: what is nearest to a sum is found code by code, and may be another sum."""
        quantizer = self.started().double()
        assert isinstance(quantizer, ResidualQuantizer)
        codes = torch.arange(8).view(1, 1, 1, 8)
        for stage in quantizer.stages:
            quantized = stage(stage.lookup(codes))
            assert torch.equal(quantized.codes, codes)
            assert torch.equal(quantized.latents, stage.lookup(codes))


def test_each_code_is_the_nearest_to_what_is_left() -> None:
    """By brute force in float64; what is given is the sum of the vectors, and each brings it nearer."""
    quantizer = ResidualQuantizerConfig(codebook_size=16, code_width=4, depth=3).build()
    latents = random_latents(quantizer, count=8)
    quantizer(latents)
    quantized = quantizer.eval()(latents)
    left, errors = latents.double().movedim(1, 3).flatten(0, 2), []
    for stage, codes in zip(quantizer.stages, quantized.codes.unbind(1), strict=True):
        vectors = stage.book.vectors.double()
        nearest = (left[:, None] - vectors[None]).square().sum(2).argmin(1)
        assert torch.equal(codes.flatten(), nearest)
        left = left - vectors[nearest]
        errors.append(left.square().mean().item())
    assert errors[2] < errors[1] < errors[0]
    flat = latents.double().movedim(1, 3).flatten(0, 2)
    torch.testing.assert_close(quantized.latents.double().movedim(1, 3).flatten(0, 2), flat - left)


def test_gradients_pass_straight_through() -> None:
    """Once, however many codes there are; the loss pulls latents to the partial sums."""
    quantizer = ResidualQuantizerConfig(codebook_size=8, code_width=4, depth=3, commitment_weight=0.5).build()
    latents = random_latents(quantizer).requires_grad_()
    quantizer(latents.detach())
    state = {name: value.clone() for name, value in quantizer.state_dict().items()}
    weights = torch.randn(4, 4, 4, 6)
    result = quantizer(latents)
    (gradient,) = torch.autograd.grad((result.latents * weights).sum(), latents)
    assert torch.equal(gradient, weights)
    quantizer.load_state_dict(state)
    partial, expected = torch.zeros_like(latents), 0.0
    for stage, codes in zip(quantizer.stages, result.codes.split(1, 1), strict=True):
        partial = partial + stage.lookup(codes)
        expected += 0.5 * (latents - partial).square().mean().item()
    assert result.auxiliary_loss.item() == pytest.approx(expected, rel=1e-5)


def test_refusals() -> None:
    """No codebook at all, and one of a single code."""
    with pytest.raises(InputError, match="depth is 0"):
        ResidualQuantizerConfig(depth=0)
    with pytest.raises(InputError, match="codebook_size is 1"):
        ResidualQuantizerConfig(codebook_size=1)
