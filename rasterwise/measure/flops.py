"""Counting FLOPs: matrix products, convolutions and attention as computed, a multiply-add as two."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def flop_counter() -> FlopCounterMode:
    """A context that counts FLOPs; ``get_total_flops()`` then gives their number.

    A masked kernel counts at its full size, and causal attention as if it were not causal. Some releases of torch,
    2.14 among them, do not count attention on CPUs; here it counts with every release.

    Example:
        >>> import torch
        >>> query = torch.zeros(2, 3, 5, 8)
        >>> with flop_counter() as counter:
        ...     _ = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        >>> counter.get_total_flops() == 2 * 2 * (2 * 3 * 5 * 5 * 8)
        True
    """
    return FlopCounterMode(
        display=False,
        custom_mapping={
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        },
    )


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs from shapes."""
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)
