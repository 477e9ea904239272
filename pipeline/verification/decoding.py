"""Decoding: cached as naive, all symbols at once as one after the other, and guidance at its two fixed points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pipeline.verification.check import Check, at_most
from pipeline.verification.subject import decoders, random_symbols, tolerance
from rasterwise.decoding.decoder import Decoder, decoded_logits
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition

GUIDED_STEPS = 64
"""Steps of a decoder in which guidance is checked."""


@torch.no_grad()
def cached_is_naive(
    model: AutoregressiveModel,
    symbols: Tensor,
    condition: Condition | None = None,
    *,
    most: float | None = None,
    among: Iterable[Decoder] | None = None,
) -> Check:
    """The logits of every cached decoder are those of a teacher-forced pass, at every position.

    Args:
        model: In evaluation mode.
        symbols: int64 ``(B, C, H, W)``.
        condition: B conditions, or None.
        most: The tolerance; by default rounding's in the model's precision.
        among: New decoders of these conditions; by default every cached one of the model.
    """
    expected = model.grid.flatten(model(symbols, condition))
    worst, where = 0.0, ""
    for decoder in decoders(model, len(symbols), condition) if among is None else among:
        difference = (decoded_logits(decoder, symbols) - expected).abs().amax((0, 2))
        position = int(difference.nan_to_num(torch.inf).argmax())
        if not difference[position].item() <= worst:
            worst = difference[position].item()
            where = f", worst at position {position} of {type(decoder).__name__}"
    return at_most(
        "cached = naive",
        worst,
        tolerance(model, expected) if most is None else most,
        f"largest difference of a logit, {model.grid.size} positions{where}",
        "a cache that is not filled at the last position, not moved on at the end of a row, or read one position too "
        "early; positions counted from the step and not from the start; a condition that the decoder leaves out",
    )


@torch.no_grad()
def fixed_point_is_sequential(
    model: AutoregressiveModel, n: int = 2, condition: Condition | None = None, *, last: int = 48
) -> Check:
    """Drawn all at once until they agree, symbols are those drawn one after the other.

    Args:
        model: In evaluation mode.
        n: Images.
        condition: n conditions, or None.
        last: How many symbols of each are drawn; those before them are given.
    """
    grid = model.grid
    known = random_symbols(grid, n).to(model.device)
    mask = grid.unflatten((torch.arange(grid.size) < grid.size - last)[None])[0]

    def drawn(method: str) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        plan = SamplingPlan.of(
            grid, n, condition, known=known, mask=mask, generator=generator, device=model.device
        )
        return model.draw(plan, method=method).symbols  # type: ignore[arg-type]

    different = (drawn("sequential") != drawn("fixed-point")).sum().item()
    return at_most(
        "fixed-point = sequential",
        different,
        0,
        f"symbols that differ, of {n} × {min(last, grid.size)} that were drawn",
        "as for cached = naive or causality: the two see different symbols before a position",
    )


@torch.no_grad()
def guidance_is_exact(model: AutoregressiveModel, symbols: Tensor, condition: Condition) -> Check:
    """Guidance draws from the conditional model at scale 1, from the unconditional one at 0, and mixes them between.

    Of ``scale`` it is asked for unconditional + scale · (conditional − unconditional), in normalised logits: a formula
    that counts from another scale is off everywhere.
    """
    size = len(symbols)
    conditional = list(_first_logits(model, symbols, condition, 1.0))
    unconditional = list(_first_logits(model, symbols, None, 1.0))
    worst, where = 0.0, 1.0
    for scale in (0.0, 1e-9, 0.5, 1.0 + 1e-9, 2.0):
        guided = _first_logits(model, symbols, condition, scale)
        for got, with_label, without in zip(guided, conditional, unconditional, strict=True):
            mixed = (without + scale * (with_label - without)).log_softmax(-1)
            difference = (got - mixed).abs().max().item()
            if not difference <= worst:
                worst, where = difference, scale
    limit = tolerance(model, torch.cat([part.flatten() for part in conditional])) * 10 + 1e-7
    return at_most(
        "guidance",
        worst,
        limit,
        f"largest difference of a logit at scales 0, 0.5, 1 and 2, {size} images"
        + (f", worst at {where:g}" if worst > limit else ""),
        "a formula whose scale 0 is the conditional model ((1 + w)·c − w·u), conditional and "
        "unconditional rows exchanged, or a label that is dropped",
    )


def _first_logits(
    model: AutoregressiveModel, symbols: Tensor, condition: Condition | None, guidance: float
) -> Iterator[Tensor]:
    """Normalised logits ``(B, T, K)`` of the first steps of the decoder that sampling would use."""
    plan = SamplingPlan.of(
        model.grid, len(symbols), condition, sampling=Sampling(guidance=guidance), device=model.device
    )
    decoder, sequence = model.sampling_decoder(plan), model.grid.flatten(symbols)
    for positions in decoder.steps[:GUIDED_STEPS]:
        yield decoder.logits().log_softmax(-1)
        decoder.advance(sequence[:, positions])
