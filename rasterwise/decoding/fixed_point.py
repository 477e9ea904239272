"""Exact parallel sampling: all symbols of an image at once, again and again until they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import guided

if TYPE_CHECKING:
    from rasterwise.models.autoregressive import AutoregressiveModel


@dataclass(frozen=True)
class ParallelSamples:
    """Images drawn in parallel, and what they took.

    Attributes:
        symbols: int64 ``(n, C, H, W)``.
        evaluations: int64 ``(n,)``: teacher-forced evaluations of the network that each image took, from 1
            to N.
    """

    symbols: Tensor
    evaluations: Tensor


def sample_by_fixed_point(
    model: AutoregressiveModel,
    plan: SamplingPlan,
    progress: Callable[[float, int], None] | None = None,
) -> ParallelSamples:
    """Draw the images of a plan by Jacobi iteration.

    With its noise fixed, symbol i is a function of the symbols before it, x_i = f_i(x_<i), and the walk's
    image is the one fixed point of F = (f_1, ..., f_N). From any first guess, x ← F(x) gets there: if the
    first k symbols are the walk's, the next one computed from them is too. An evaluation that leaves more of
    them as they were has shown those to be the walk's as well, and one more: each was computed from symbols
    that did not change. What has settled is kept from then on, so that rounding, which may differ from one
    batch to the next, cannot undo it: N evaluations are always enough.

    Images that have settled leave the batch, and the next ones enter it.

    Args:
        model: In evaluation mode.
        plan: What is to be drawn; the logits of a batch are ``(batch_size, N, K)``.
        progress: Called with (images drawn so far, counted by settled symbols; images in all).

    References:
        Wiggers and Hoogeboom, Predictive Sampling with Forecasting Autoregressive Models, 2020 (arXiv
        2002.09928); Song et al., Accelerating Feedforward Computation via Parallel Nonlinear Equation
        Solving, 2020 (arXiv 2002.03629). The former fixes Gumbel noise, K numbers a symbol; here it is the
        one uniform number that the walk inverts the cumulative distribution at.
    """
    size, device = model.grid.size, model.device
    symbols = torch.zeros(len(plan), size, dtype=torch.int64, device=device)
    if plan.known is not None:
        symbols = plan.known.clamp(min=0)
    settled = torch.zeros(len(plan), dtype=torch.int64, device=device)  # how many, from the first on
    evaluations = torch.zeros_like(settled)
    places = torch.arange(size, device=device)
    while len(rows := (settled < size).nonzero()[: plan.batch_size, 0]):
        part, before = plan[rows], symbols[rows]
        drawn = part.draw(_teacher_forced_logits(model, part, before), slice(None))
        drawn = torch.where(places < settled[rows, None], before, drawn)
        unchanged = (drawn == before).long().cumprod(1).sum(1)
        symbols[rows] = drawn
        settled[rows] = (unchanged + 1).clamp(max=size)
        evaluations[rows] += 1
        if progress:
            progress(int(settled.sum()) / size, len(plan))
    return ParallelSamples(model.grid.unflatten(symbols), evaluations)


def _teacher_forced_logits(model: AutoregressiveModel, plan: SamplingPlan, symbols: Tensor) -> Tensor:
    """Logits ``(B, N, K)``, with guidance, of symbols ``(B, N)`` in raster order."""
    grid = model.grid
    inputs = grid.unflatten(symbols)
    if plan.condition is None or plan.sampling.guidance == 1:
        return grid.flatten(model(inputs, plan.condition))
    both = model(inputs.repeat(2, 1, 1, 1), plan.condition.with_unconditioned())
    return grid.flatten(guided(both, plan.sampling.guidance))
