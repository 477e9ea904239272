"""The windowed fixed point: Jacobi iteration of the next few symbols, over keys and values of those before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.decoding.kv_cache import AttentionCache
from rasterwise.decoding.plan import SampledSymbols, SamplingPlan
from rasterwise.decoding.sampling import check_drawn, guided
from rasterwise.decoding.transformer import TransformerDecoder
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid

SHARE_THAT_SETTLES = 0.4
"""Of a window, in the mean. With wider ones more settles at once, but less of what is computed."""

FIRST_GUESS = 8.0
"""Symbols that settle at once."""

SMALLEST = 4
"""Positions; fewer cost as much."""


class WindowKVCache(AttentionCache):
    """A cache in which positions that follow one another attend at once, and may do so again with other inputs.

    Args:
        memory: As for ``KVCache``.
        batch_size: How many images the rows are of.
    """

    def __init__(self, memory: Tensor, batch_size: int) -> None:
        self.memory = memory.unflatten(2, (batch_size, -1))  # (depth, 2, B, heads, N, h)

    def go_to(self, start: int, count: int = 1) -> None:
        self.start, self.stop = start, start + count
        positions = torch.arange(self.stop, device=self.memory.device)
        self.mask = positions <= positions[start:, None]

    def row_of(self, table: Tensor) -> Tensor:
        """The current positions' rows of a table ``(N, ...)``, for every image: ``(B · T, ...)``."""
        rows = table[self.start : self.stop]
        return rows.expand(self.memory.shape[2], *rows.shape).flatten(0, 1)

    def attend(self, layer: int, qkv: Tensor, bias: Tensor | None = None) -> Tensor:
        assert bias is None, "a window is of positions that attend to all before them"
        _, _, batch_size, heads, _, width = self.memory.shape
        by_position = qkv.view(batch_size, self.stop - self.start, heads, 3, width)
        query, *entry = by_position.permute(3, 0, 2, 1, 4)
        keys, values = filled = self.memory[layer, :, :, :, : self.stop]
        filled[:, :, :, self.start :] = torch.stack(entry)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=self.mask, scale=1.0)
        return mixed.transpose(1, 2).reshape(len(qkv), 1, width)


class WindowedModel(Protocol):
    """``AutoregressiveModel.window_decoder``."""

    def __call__(self, batch_size: int, condition: Condition | None, /, *, window: int) -> TransformerDecoder:
        """A decoder that has not begun."""


class WindowDecoder:
    """Gives the logits of positions that follow one another, given guesses of their symbols.

    Args:
        decoder: A decoder of the images that has not begun, in raster order; it serves nothing else from now on.
    """

    def __init__(self, decoder: TransformerDecoder) -> None:
        self.decoder, self.start = decoder, decoder.stream
        self.cache = decoder.cache = WindowKVCache(decoder.cache.memory, decoder.batch_size)

    @torch.no_grad()
    def logits(self, symbols: Tensor, start: int, stop: int) -> Tensor:
        """Logits of symbols ``start`` to ``stop``, each given those before it.

        Args:
            symbols: int64 ``(B, N)``. Those before ``start`` are the same in all calls to come.
            start: The first; all positions before it have been in a window.
            stop: The one after the last.

        Returns:
            ``(B, stop − start, K)``.
        """
        stream = F.embedding(symbols[:, max(start - 1, 0) : stop - 1], self.decoder.symbol_vectors)
        if start == 0:
            stream = torch.cat([self.start[:, None], stream], 1)
        self.cache.go_to(start, stop - start)
        return self.decoder.pass_positions(stream.flatten(0, 1)).unflatten(0, (len(symbols), -1))


def windowed_decode(
    make_decoder: WindowedModel,
    plan: SamplingPlan,
    window: int,
    progress: Callable[[float, int], None] | None = None,
) -> SampledSymbols:
    """Draw the images of a plan, one after the other, by Jacobi iteration of a window of symbols.

    As in ``jacobi_decode``, symbols are drawn again and again from guesses of those before them, with noise that is
    fixed, and settle from the first on: the images are those of sequential decoding. But what has settled stays in
    the KV cache, and nothing is spent on symbols that are too far ahead for their guesses to be right. An evaluation
    of w positions reads the weights once, as a sequential step does: where reading them, or the dispatch of
    operations, is most of the time of a step, it costs little more.

    The window adapts to how many symbols settle at once.

    Args:
        make_decoder: Makes a decoder, given a batch size, as many conditions, and the window.
        plan: What is drawn.
        window: The most positions of an evaluation, 1 or more; 1 is sequential decoding.
        progress: Called with (images drawn so far, counted by settled symbols; images in all).

    Returns:
        The symbols, and for each image its evaluations and the positions in all of them.

    Raises:
        NonFiniteError: The logits of a symbol are no distribution: one is NaN or +inf, or all are −inf.

    References:
        Song et al., Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving, 2020 (arXiv
        2002.03629), for the iteration; Santilli et al., Accelerating Transformer Inference for Translation via
        Parallel Decoding, 2023 (arXiv 2305.10427), for blocks of it over a KV cache.
    """
    images = []
    for index in range(len(plan)):
        image = plan[index : index + 1]
        done = partial(_report, progress, index, len(plan)) if progress else None
        images.append(_draw_image(make_decoder, image, window, done))
    return SampledSymbols(*(torch.cat(parts) for parts in zip(*images, strict=True)))


def _draw_image(
    make_decoder: WindowedModel,
    plan: SamplingPlan,
    window: int,
    progress: Callable[[float], None] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The symbols, evaluations and positions of a plan of one image."""
    grid, logits = _evaluated(make_decoder, plan, window)
    size = grid.size
    symbols = torch.zeros(1, size, dtype=torch.int64, device=plan.positions.device)
    if plan.known is not None:
        symbols = plan.known.clamp(min=0)
    start, evaluations, positions, settling = 0, 0, 0, FIRST_GUESS
    while start < size:
        width = min(max(SMALLEST, round(settling / SHARE_THAT_SETTLES)), window, size - start)
        at = slice(start, start + width)
        drawn = plan.draw(logits(symbols, at.start, at.stop), at)
        unchanged = int((drawn == symbols[:, at]).long().cumprod(1).sum())
        settled = min(unchanged + 1, width)
        # A guess that is wrong may well lead to logits that are no distribution; a symbol that has settled not.
        check_drawn(drawn[:, :settled], grid.levels)
        symbols[:, at] = drawn.clamp_(max=grid.levels - 1)
        start, evaluations, positions = start + settled, evaluations + 1, positions + width
        settling += 0.3 * (settled - settling)
        if progress:
            progress(start / size)
    return grid.unflatten(symbols), *torch.tensor([[evaluations], [positions]], device=symbols.device)


def _evaluated(
    make_decoder: WindowedModel, plan: SamplingPlan, window: int
) -> tuple[Grid, Callable[[Tensor, int, int], Tensor]]:
    """The grid, and a window's logits for a plan of one image, guided where it asks for it."""
    scale = plan.sampling.guidance
    if plan.condition is None or scale == 1:
        decoder = make_decoder(1, plan.condition, window=window)
        return decoder.grid, WindowDecoder(decoder).logits
    decoder = make_decoder(2, plan.condition.with_unconditioned(), window=window)
    both = WindowDecoder(decoder)
    return decoder.grid, lambda symbols, *at: guided(both.logits(symbols.repeat(2, 1), *at), scale)


def _report(progress: Callable[[float, int], None], before: int, total: int, share: float) -> None:
    progress(before + share, total)
