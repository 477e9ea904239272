"""Every property of one model, one after the other: ``rasterwise.verify``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor

from pipeline.image_pipeline import ImagePipeline
from pipeline.verification.batches import batch_invariance, condition_counts, padding_invariance, repeats
from pipeline.verification.check import Check, attempted, skipped, table
from pipeline.verification.coding import codec_round_trip
from pipeline.verification.decoding import cached_is_naive, fixed_point_is_sequential, guidance_is_exact
from pipeline.verification.files import saved_and_opened
from pipeline.verification.likelihood import (
    causality,
    exchange,
    normalisation,
    receptive_field,
    samples_follow_probabilities,
)
from pipeline.verification.subject import can_be_enumerated, exact_copy, random_condition, random_symbols
from pipeline.verification.tokenizers import (
    code_flips,
    dead_codes,
    fingerprint_fits,
    grid_fits,
    symbols_come_back,
)
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.order import RasterOrder
from rasterwise.tokenizers.image import ImageTokenizer
from stage1_vqvae.tokenizers.learned import LearnedTokenizer

POSITIONS = 24
"""At which causality is checked, spread over the grid; the first and the last are among them."""

LARGE_GRID = 8192
"""Symbols above which decoders are not walked to the end, which would take many minutes."""


@dataclass(frozen=True)
class Verification:
    """What was found out about a model; printed, it is a table.

    Attributes:
        checks: One a property.
    """

    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The properties that do not hold."""
        return tuple(check.name for check in self.checks if check.verdict == "fails")

    @property
    def passed(self) -> bool:
        """Whether none failed."""
        return not self.failed

    def as_json(self) -> list[dict[str, Any]]:
        """The checks as JSON."""
        return [asdict(check) for check in self.checks]

    def __str__(self) -> str:
        return table(self.checks)


def verify(
    model: AutoregressiveModel | ImagePipeline,
    tokenizer: ImageTokenizer | None = None,
    *,
    images: Tensor | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> Verification:
    """Check on a model as it is, its weights and its grid, what must hold for every model.

    Args:
        model: Yours or ours, trained or not; or a pipeline, whose tokenizer is checked with it.
        tokenizer: Whose symbols the model is of; None for none.
        images: uint8 ``(B, C, H, W)``: for the figures of a learned tokenizer's codes; by default images that it
            decodes random codes to.
        progress: Called with (checks done, checks in all).

    Returns:
        A check for each property; ``passed`` says whether all hold.

    Example:
        >>> from rasterwise import Grid, PixelCNN, PixelCNNConfig, verify
        >>> model = PixelCNN(PixelCNNConfig(grid=Grid(1, 3, 3, 4), width=8, output_width=8, blocks=1))
        >>> verification = verify(model)
        >>> verification.passed, [check.name for check in verification.checks][:2]
        (True, ['causality', 'causality by exchange'])
    """
    if isinstance(model, ImagePipeline):
        tokenizer = tokenizer or model.tokenizer
        model = model.model
    planned = list(_planned(model, tokenizer, images))
    done = []
    for number, (name, check) in enumerate(planned, 1):
        done.append(attempted(name, check))
        if progress:
            progress(number, len(planned))
    return Verification(tuple(done))


def _planned(
    model: AutoregressiveModel, tokenizer: ImageTokenizer | None, images: Tensor | None
) -> Iterator[tuple[str, Callable[[], Check]]]:
    """Every check with its name, for a failure that gives no check."""
    exact, grid = exact_copy(model), model.grid
    symbols = random_symbols(grid, 2).to(model.device)
    condition = random_condition(model, 2)
    positions = sorted({round(share * (grid.size - 1) / (POSITIONS - 1)) for share in range(POSITIONS)})
    yield "causality", partial(causality, exact, symbols[:1], positions)
    yield "causality by exchange", partial(exchange, exact, symbols[:1], positions[::3])
    yield "receptive field", partial(receptive_field, exact, symbols[:1], positions)
    yield "normalisation", partial(normalisation, exact, symbols, condition)
    yield "repeatability", partial(repeats, exact, symbols, condition)
    yield "batch invariance", partial(batch_invariance, exact, symbols, condition)
    if grid.size > LARGE_GRID:
        for name in ("cached = naive", "fixed-point = sequential", "samples against log_prob"):
            yield name, partial(skipped, name, f"a grid of {grid.size:,} symbols takes too long")
    else:
        yield "cached = naive", partial(cached_is_naive, exact, symbols, condition)
        if isinstance(model.order, RasterOrder):
            yield "fixed-point = sequential", partial(fixed_point_is_sequential, exact, 2, condition)
        else:
            name = "fixed-point = sequential"
            yield name, partial(skipped, name, "the model's order is not raster order")
        n = 2000 if can_be_enumerated(grid) else max(4, min(64, 20_000 // grid.size))
        yield "samples against log_prob", partial(samples_follow_probabilities, model.eval(), n)
    if condition is None:
        why = "the model takes no labels and no texts"
        yield "condition counts", partial(skipped, "condition counts", why)
        yield "guidance", partial(skipped, "guidance", why)
    else:
        yield "condition counts", partial(condition_counts, exact, symbols, condition)
        yield "guidance", partial(guidance_is_exact, exact, symbols, condition)
    if condition is None or condition.text is None:
        yield "padding invariance", partial(skipped, "padding invariance", "the model takes no texts")
    else:
        yield "padding invariance", partial(padding_invariance, exact, symbols, condition)
    if grid.size <= LARGE_GRID:
        yield "codec round trip", partial(codec_round_trip, model, symbols)
    yield "save and open", partial(saved_and_opened, model, symbols, condition)
    if tokenizer is not None:
        yield from _of_tokenizer(tokenizer, model, images)


def _of_tokenizer(
    tokenizer: ImageTokenizer, model: AutoregressiveModel, images: Tensor | None
) -> Iterator[tuple[str, Callable[[], Check]]]:
    yield "tokenizer: fingerprint", partial(fingerprint_fits, tokenizer, model)
    yield "tokenizer: grid and vocabulary", partial(grid_fits, tokenizer, model)
    yield "tokenizer: round trip", partial(symbols_come_back, tokenizer, model)
    if isinstance(tokenizer, LearnedTokenizer):
        learned = tokenizer

        def shown() -> Tensor:
            return (
                learned.decode(random_symbols(model.grid, 16).to(learned.device))
                if images is None
                else images
            )

        yield "tokenizer: dead codes", lambda: dead_codes(learned, shown())
        yield "tokenizer: bf16 code flips", lambda: code_flips(learned, shown())
