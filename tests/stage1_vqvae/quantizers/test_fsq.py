"""Finite scalar quantization."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rasterwise.errors import InputError
from stage1_vqvae.quantizers.fsq import FSQConfig
from stage1_vqvae.quantizers.quantizer import Quantizer
from tests.quantizer_suite import QuantizerSuite, random_latents

LEVELS = (4, 3, 5)


def bounds(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Half the range of each channel, and the offset by which an even number of levels is off its centre."""
    return (levels - 1) * (1 + 1e-3) / 2, (levels % 2 == 0).double() / 2


class TestFiniteScalarQuantizer(QuantizerSuite):
    """The shared suite."""

    config = FSQConfig(levels=LEVELS)

    def latents_of(self, quantizer: Quantizer, codes: Tensor) -> Tensor:
        """What the bounding tanh takes to the levels."""
        levels = torch.tensor(LEVELS).double().view(-1, 1, 1)
        half, offset = bounds(levels)
        rounded = quantizer.lookup(codes).double() * (levels // 2)
        return torch.atanh((rounded + offset) / half) - torch.atanh(offset / half)


def test_the_nearest_level_is_taken_and_its_index_is_the_code() -> None:
    """By the paper's formula in float64: round(tanh), then a number with the levels as its digits, lowest first."""
    quantizer = FSQConfig(levels=LEVELS).build()
    latents = 2 * random_latents(quantizer)
    levels = torch.tensor(LEVELS).double().view(-1, 1, 1)
    half, offset = bounds(levels)
    bounded = torch.tanh(latents.double() + torch.atanh(offset / half)) * half - offset
    quantized = quantizer(latents)
    torch.testing.assert_close(quantized.latents.double(), bounded.round() / (levels // 2))
    digits = bounded.round() + levels // 2
    assert torch.equal(quantized.codes[:, 0], (digits[:, 0] + 4 * digits[:, 1] + 12 * digits[:, 2]).long())


def test_gradients_are_those_of_the_bound() -> None:
    """Straight through the rounding, not through the tanh."""
    quantizer = FSQConfig(levels=LEVELS).build()
    latents = random_latents(quantizer).double().requires_grad_()
    weights = torch.randn(4, 3, 4, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((quantizer.double()(latents).latents * weights).sum(), latents)
    levels = torch.tensor(LEVELS).double().view(-1, 1, 1)
    half, offset = bounds(levels)
    bounded = torch.tanh(latents + torch.atanh(offset / half)) * half / (levels // 2)
    (expected,) = torch.autograd.grad((bounded * weights).sum(), latents)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)


def test_refusals() -> None:
    """Levels that make other codes than were asked for, too few levels, too many codes."""
    assert FSQConfig(levels=(8, 8), codebook_size=64).build().codebook_size == 64
    with pytest.raises(InputError, match="codebook_size is 512, but levels 8 5 5 5 make 1000 codes"):
        FSQConfig(codebook_size=512)
    with pytest.raises(InputError, match=r"levels\.1 is 2, expected 3 or more"):
        FSQConfig(levels=(8, 2))
    with pytest.raises(InputError, match="levels are none"):
        FSQConfig(levels=())
    with pytest.raises(InputError, match="expected at most"):
        FSQConfig(levels=(64,) * 5)
