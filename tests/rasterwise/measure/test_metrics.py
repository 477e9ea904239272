"""Metrics sum, count, and divide once."""

from __future__ import annotations

import math

import pytest
import torch

from rasterwise.measure.metrics import Means, histogram_entropy_nats, psnr_db, text_rates


def test_means_do_not_depend_on_how_items_are_batched() -> None:
    """Uneven batches give the mean and the standard error over all items."""
    values = torch.randn(10, dtype=torch.float64)
    means = Means()
    for part in (values[:1], values[1:8], values[8:]):
        means.add(x=part)
    assert means.count("x") == 10
    assert means.mean("x") == pytest.approx(values.mean().item())
    assert means.standard_error("x") == pytest.approx(values.std().item() / math.sqrt(10))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(value: float) -> None:
    """One NaN or infinity among the items: neither the mean nor its error becomes a number that looks right."""
    means = Means()
    means.add(x=torch.tensor([1.0, value, 3.0]))
    assert not math.isfinite(means.mean("x"))
    assert math.isnan(means.standard_error("x"))


def test_equal_items_have_no_error() -> None:
    """Rounding, which takes the sum of squared deviations below 0, gives 0 and no error."""
    means = Means()
    means.add(x=torch.full((1000,), 0.1, dtype=torch.float64))
    assert means.standard_error("x") == pytest.approx(0, abs=1e-9)


def test_psnr() -> None:
    """20 log10(255) dB for an error of 1, infinite for none."""
    assert psnr_db(1) == pytest.approx(48.1308, abs=1e-4)
    assert psnr_db(0) == math.inf


def test_entropy() -> None:
    """log K for a uniform histogram, 0 for a single value."""
    assert histogram_entropy_nats(torch.full((8,), 5)) == pytest.approx(math.log(8))
    assert histogram_entropy_nats(torch.tensor([0, 7, 0])) == 0


def test_bits_a_byte_do_not_depend_on_the_tokenizer() -> None:
    """The same nats over the same text: another number of tokens changes nats a token alone."""
    fine, coarse = text_rates(100.0, 50, 80), text_rates(100.0, 10, 80)
    assert fine.bits_per_byte == coarse.bits_per_byte == pytest.approx(100 / math.log(2) / 80)
    assert (fine.nats_per_token, coarse.nats_per_token) == (2.0, 10.0)
    assert math.isnan(text_rates(0.0, 0, 0).bits_per_byte)
