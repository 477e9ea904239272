"""The transformer prior: the shared suite, its positions, and transformers' own generation."""

from __future__ import annotations

import pytest
import torch

from rasterwise.errors import InputError
from rasterwise.grid import Grid
from rasterwise.sampling import Sampling
from stage2_prior import TransformerPrior, TransformerPriorConfig
from stage2_prior.rotary import GridRotaryEmbedding
from tests.autoregressive_suite import AutoregressiveSuite, randomized


class TestTransformerPrior(AutoregressiveSuite):
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> TransformerPrior:
        return TransformerPrior(
            TransformerPriorConfig(grid=grid, classes=classes, depth=2, width=24, heads=2)
        )


def test_greedy_sampling_is_transformers_generation() -> None:
    """The weights are Llama's own: ``generate`` from the start vector gives the same codes."""
    grid = Grid(1, 4, 5, 11)
    model = randomized(TransformerPrior(TransformerPriorConfig(grid=grid, depth=2, width=24, heads=2)))
    ours = grid.flatten(model.sample(1, sampling=Sampling(temperature=0)))
    start = model.start(model.class_index(None, 1))[:, None]
    theirs = model.llama.generate(inputs_embeds=start, max_new_tokens=grid.size, do_sample=False)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "grid", [Grid(1, 3, 4, 2), Grid(2, 2, 3, 2), Grid(1, 1, 5, 2), Grid(3, 4, 4, 2)], ids=str
)
def test_attention_sees_differences_of_coordinates_alone(grid: Grid) -> None:
    """A rotated query meets a rotated key by their offset in row, column and channel, wherever they are."""
    rotary = GridRotaryEmbedding(grid, 12)
    positions = torch.arange(grid.size)[None]
    cos, sin = rotary(torch.zeros(1, dtype=torch.float64), positions)
    query, key = torch.randn(12, dtype=torch.float64), torch.randn(12, dtype=torch.float64)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        half = torch.cat([-x[6:], x[:6]])
        return x * cos[0] + half * sin[0]

    scores = rotated(query) @ rotated(key).T
    by_offset: dict[tuple[int, ...], float] = {}
    for i in range(grid.size):
        for j in range(grid.size):
            offset = tuple(a - b for a, b in zip(grid.site(i), grid.site(j), strict=True))
            assert scores[i, j].item() == pytest.approx(
                by_offset.setdefault(offset, scores[i, j].item()), abs=1e-9
            )
    assert len({round(score, 9) for score in by_offset.values()}) == len(by_offset)


def test_half_precision_keeps_its_positions() -> None:
    """A model cast to bfloat16 turns by exact angles, not by rounded ones."""
    rotary = GridRotaryEmbedding(Grid(1, 16, 16, 2), 8)
    before = rotary.angles.clone()
    assert torch.equal(rotary.to(torch.bfloat16).angles, before)


def test_refusals() -> None:
    """Widths that heads do not divide, and impossible dropout."""
    with pytest.raises(InputError, match="no multiple of 2 × 5 heads"):
        TransformerPriorConfig(width=64, heads=5)
    with pytest.raises(InputError, match="dropout"):
        TransformerPriorConfig(dropout=1.0)
