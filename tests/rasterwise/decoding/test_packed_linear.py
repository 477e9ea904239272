"""Packed products are those of F.linear, wherever the operators are missing as well."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rasterwise.decoding import packed_linear
from rasterwise.decoding.packed_linear import PackedLinear, can_pack


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("rows", "expected_rows"), [(1, 1), (3, 1), (1, 4), (16, 4)])
@pytest.mark.parametrize("biased", [True, False])
def test_every_product_is_the_plain_one(
    dtype: torch.dtype, rows: int, expected_rows: int, biased: bool
) -> None:
    """Alone and with what follows it; for other rows than those expected too; none changes its input."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, x, other = (
        torch.randn(*shape, generator=generator).to(dtype)
        for shape in ((37, 24), (37,), (rows, 24), (rows, 37))
    )
    linear = PackedLinear(weight, bias if biased else None, rows=expected_rows)
    plain = F.linear(x, weight, bias if biased else None)
    before = x.clone()
    weight.zero_()  # it keeps its own
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
    for product, expected in (
        (linear(x), plain),
        (linear.silu(x), F.silu(plain)),
        (linear.added(x, other.clone()), plain + other),
        (linear.multiplied(x, other), plain * other),
    ):
        assert product.dtype == dtype
        torch.testing.assert_close(product, expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(x, before)


def test_only_what_onednn_multiplies_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """float64 never is, and nothing is where torch has no such operators."""
    weight = torch.zeros(2, 2)
    assert not can_pack(weight.double())
    assert not can_pack(weight.to("meta"))
    assert can_pack(weight) == torch.backends.mkldnn.is_available()
    monkeypatch.setattr(packed_linear.torch.backends.mkldnn, "is_available", lambda: False)
    assert not can_pack(weight)
