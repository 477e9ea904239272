"""FLOPs are counted wherever attention is computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from rasterwise.measure.flops import flop_counter

B, HEADS, T, WIDTH = 2, 3, 7, 8
PRODUCT = 2 * B * HEADS * T * T * WIDTH


def attention_flops(backend: SDPBackend, *, causal: bool, backward: bool) -> int:
    query, key, value = torch.randn(3, B, HEADS, T, WIDTH, requires_grad=True).unbind()
    with sdpa_kernel(backend), flop_counter() as counter:
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        if backward:
            mixed.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("causal", [False, True])
def test_attention_counts_the_same_however_it_is_computed(causal: bool) -> None:
    """Two products forward; four more backward, and a fifth where the scores are computed again."""
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        assert attention_flops(backend, causal=causal, backward=False) == 2 * PRODUCT
    assert attention_flops(SDPBackend.MATH, causal=causal, backward=True) == 6 * PRODUCT
    assert attention_flops(SDPBackend.FLASH_ATTENTION, causal=causal, backward=True) == 7 * PRODUCT


def test_products_and_convolutions_count() -> None:
    with flop_counter() as counter:
        torch.zeros(3, 4) @ torch.zeros(4, 5)
        F.conv2d(torch.zeros(2, 3, 6, 6), torch.zeros(4, 3, 3, 3))
    assert counter.get_total_flops() == 2 * 3 * 4 * 5 + 2 * (2 * 4 * 4) * (4 * 3 * 3 * 3)
