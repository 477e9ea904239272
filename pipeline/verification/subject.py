"""What is verified: a model as it is, and grids and conditions to ask it about."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from rasterwise.decoding.decoder import Decoder
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.text import TextBatch

MOST_GRIDS = 2**12
"""Grids that are enumerated at most."""


def exact_copy(model: AutoregressiveModel) -> AutoregressiveModel:
    """A copy in evaluation mode and float64, so that a difference is an error and no rounding.

    A model that does not compute in float64 is copied in its own precision; see ``tolerance``.
    """
    exact = copy.deepcopy(model).double().eval()
    try:
        with torch.no_grad():
            exact(random_symbols(model.grid, 1))
    except RuntimeError:
        return copy.deepcopy(model).eval()
    return exact


def tolerance(model: AutoregressiveModel, logits: Tensor) -> float:
    """How far logits of equal computations may differ: 1e-10 in float64, 1e-4 below, times the logits' size."""
    size = max(1.0, logits.abs().amax().item())
    return size * (1e-10 if next(model.parameters()).dtype == torch.float64 else 1e-4)


def random_symbols(grid: Grid, batch_size: int, seed: int = 0) -> Tensor:
    """Uniform symbols, int64 ``(B, C, H, W)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(grid.levels, (batch_size, *grid.shape), generator=generator)


def every_grid(grid: Grid) -> Tensor:
    """All symbols that a small grid can hold, int64 ``(K^N, C, H, W)``."""
    sequences = torch.tensor(list(itertools.product(range(grid.levels), repeat=grid.size)))
    return grid.unflatten(sequences)


def can_be_enumerated(grid: Grid) -> bool:
    """Whether there are few enough grids to sum over all of them."""
    return grid.size < 64 and grid.levels**grid.size <= MOST_GRIDS


def random_condition(model: AutoregressiveModel, batch_size: int) -> Condition | None:
    """Labels of different classes and texts of different lengths; None for a model that takes neither."""
    classes, tokens = len(model.config.classes), getattr(model.config, "text_tokens", 0)
    label = torch.arange(batch_size) % classes if classes else None
    text = None
    if model.takes_text and tokens:
        lengths = [1 + row % model.config.text_length for row in range(batch_size)]  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(0)
        text = TextBatch.of([torch.randint(tokens, (length,), generator=generator) for length in lengths])
    return None if label is None and text is None else Condition(label, text=text).to(model.device)


def decoders(model: AutoregressiveModel, batch_size: int, condition: Condition | None) -> Iterator[Decoder]:
    """Every cached decoder that the model has: in raster order, and in wavefronts."""
    yield model.decoder(batch_size, condition)
    wavefront = model.wavefront_decoder(batch_size, condition)
    if wavefront is not None:
        yield wavefront
