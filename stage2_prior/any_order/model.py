"""The any-order prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from rasterwise.decoding.decoder import Decoder
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.order import spread_order
from stage2_prior.any_order.decoder import AnyOrderDecoder
from stage2_prior.any_order.network import AnyOrderNetwork


class AnyOrderPrior(AnyOrderNetwork):
    """Transformer over symbols in any order, of which one or several are drawn a step.

    The first half of the layers reads a start vector, which carries the class, and the symbols in their order. In the
    other half the queries are positions: each begins as the embedding of the position that it is to predict, and
    attends to what has been read of the symbols before it. They do not see one another, so that symbols of one step
    are independent given those of the steps before it, and ``log_prob`` is exact for any order of steps.

    The model is in raster order, one symbol a step; ``in_order`` and ``in_steps`` are the same weights in others.
    Trained on random orders whose probability falls to ``final_random_share``, as RAR is; with a share above 0, several
    codes a step can be drawn, as ARPG does. Deviation from ARPG: every query layer has keys and values of its own, and
    target positions are embedded beside their rotation. Deviation from RAR: the position to predict is in the queries
    and not added to the symbols.

    Args:
        config: Its architecture and its data.

    References:
        Yu et al., Randomized Autoregressive Visual Generation, 2024 (arXiv 2411.00776); Li et al., Autoregressive
        Image Generation with Randomized Parallel Decoding, 2025 (arXiv 2503.10568).

    Example:
        >>> import torch
        >>> from rasterwise import AnyOrderPrior, AnyOrderPriorConfig, Grid
        >>> config = AnyOrderPriorConfig(grid=Grid(1, 4, 4, 16), width=32, heads=2, final_random_share=1.0)
        >>> prior = AnyOrderPrior(config).eval()
        >>> in_five = prior.in_steps(5)
        >>> symbols = in_five.sample(2)
        >>> symbols.shape, in_five.log_prob(symbols).shape, [len(step) for step in in_five.order]
        (torch.Size([2, 1, 4, 4]), torch.Size([2]), [1, 2, 4, 4, 5])
    """

    kind = "any-order-prior"
    decodes_in_bf16 = True

    def log_prob(
        self, symbols: Tensor, condition: Condition | None = None, *, order: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Exact log-probability of grids of symbols, in the model's order or another: ``(B,)`` nats.

        Args:
            symbols: int64 ``(B, C, H, W)`` in ``[0, K)``.
            condition: B conditions, or None.
            order: As for ``in_order``.
        """
        if order is not None:
            return self.in_order(order).log_prob(symbols, condition)
        return super().log_prob(symbols, condition)

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return AnyOrderDecoder(self, batch_size, condition)

    def in_steps(self, steps: int) -> Self:
        order = spread_order(self.grid, steps)
        if not self.config.final_random_share:
            raise InputError(
                "this any-order-prior ended its training in raster order alone; leave the steps out, or train one with "
                "--final-random-share 1"
            )
        return self.in_order(order)
