"""Jacobi decoding: all symbols of an image at once, again and again until they agree. Exact."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rasterwise.decoding.decoder import TeacherForced
from rasterwise.decoding.plan import SampledSymbols, SamplingPlan
from rasterwise.decoding.sampling import check_drawn, guided


def jacobi_decode(
    model: TeacherForced, plan: SamplingPlan, progress: Callable[[float, int], None] | None = None
) -> SampledSymbols:
    """Draw the images of a plan by Jacobi iteration.

    With its noise fixed, symbol i is a function of the symbols before it, x_i = f_i(x_<i), and the image that
    sequential decoding draws is the one fixed point of F = (f_1, ..., f_N). From any first guess, x ← F(x)
    gets there: if the first k symbols are right, so is the next one that is computed from them. An evaluation
    that leaves more symbols as they were has shown those to be right as well, and one more: each was computed
    from symbols that did not change. What has settled is kept from then on, so that rounding, which may differ
    from one batch to the next, cannot undo it: N evaluations are always enough.

    Images that have settled leave the batch, and the next ones enter it.

    Args:
        model: In evaluation mode.
        plan: What is drawn; the logits of a batch are ``(batch_size, N, K)``.
        progress: Called with (images drawn so far, counted by settled symbols; images in all).

    Returns:
        The symbols, and how many evaluations each image took.

    Raises:
        NonFiniteError: The logits of a symbol are no distribution: one is NaN or +inf, or all are −inf.

    References:
        Wiggers and Hoogeboom, Predictive Sampling with Forecasting Autoregressive Models, 2020 (arXiv
        2002.09928); Song et al., Accelerating Feedforward Computation via Parallel Nonlinear Equation
        Solving, 2020 (arXiv 2002.03629). The former fixes Gumbel noise, K numbers a symbol; by default it is
        here the one uniform number at which the cumulative distribution is inverted.
    """
    grid, device = model.grid, model.device
    symbols = torch.zeros(len(plan), grid.size, dtype=torch.int64, device=device)
    if plan.known is not None:
        symbols = plan.known.clamp(min=0)
    settled = torch.zeros(len(plan), dtype=torch.int64, device=device)  # how many, from the first on
    evaluations = torch.zeros_like(settled)
    while len(rows := (settled < grid.size).nonzero()[: plan.batch_size, 0]):
        part, before = plan[rows], symbols[rows]
        drawn = part.draw(_teacher_forced_logits(model, part, before), slice(None))
        drawn = torch.where(plan.positions < settled[rows, None], before, drawn)
        unchanged = (drawn == before).long().cumprod(1).sum(1)
        settled[rows] = (unchanged + 1).clamp(max=grid.size)
        # A guess that is wrong may well lead to logits that are no distribution; a symbol that has settled not.
        check_drawn(drawn.where(plan.positions < settled[rows, None], 0), grid.levels)
        symbols[rows] = drawn.clamp_(max=grid.levels - 1)
        evaluations[rows] += 1
        if progress:
            progress(int(settled.sum()) / grid.size, len(plan))
    return SampledSymbols(grid.unflatten(symbols), evaluations, evaluations * grid.size)


def _teacher_forced_logits(model: TeacherForced, plan: SamplingPlan, symbols: Tensor) -> Tensor:
    """Logits ``(B, N, K)``, guided where the plan asks for it, of symbols ``(B, N)`` in raster order."""
    grid = model.grid
    inputs = grid.unflatten(symbols)
    if plan.condition is None or plan.sampling.guidance == 1:
        return grid.flatten(model(inputs, plan.condition))
    both = model(inputs.repeat(2, 1, 1, 1), plan.condition.with_unconditioned())
    return grid.flatten(guided(both, plan.sampling.guidance))
