"""A walk by fronts takes every symbol once, after all that it may depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rasterwise.decoding.decoder import GuidedWavefrontDecoder, WavefrontDecoder
from rasterwise.decoding.loop import walk
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling, guided
from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.order import Front, wavefronts

GRIDS = [Grid(1, 4, 5, 3), Grid(3, 5, 2, 4), Grid(2, 1, 6, 2), Grid(1, 6, 1, 2)]


class Scripted(WavefrontDecoder):
    """Gives each symbol logits of its own; keeps what it was told."""

    def __init__(self, grid: Grid, batch_size: int, lag: int) -> None:
        super().__init__(grid, batch_size, lag, torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(batch_size, grid.size, grid.levels, generator=generator)
        self.told: list[Tensor] = []

    def _logits(self, front: Front) -> Tensor:
        return self.table[:, self.places[self.number]]

    def _advance(self, front: Front, symbols: Tensor) -> None:
        self.told.append(symbols)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_symbol_is_taken_once_and_rows_keep_their_distance(grid: Grid) -> None:
    """At any lag; a symbol comes after those of its row before it, and those above up to lag − 1 columns on."""
    for lag in range(1, grid.width + 1):
        decoder = Scripted(grid, 1, lag)
        order = torch.cat(decoder.places)
        assert sorted(order.tolist()) == list(range(grid.size))
        when = torch.empty(grid.size, dtype=torch.int64)
        for number, places in enumerate(decoder.places):
            when[places] = number
        times = when.view(grid.height, grid.width, grid.channels)
        assert (times.flatten(1).diff(dim=1) > 0).all()
        for row in range(1, grid.height):
            for column in range(grid.width):
                seen = times[row - 1, : column + lag]
                assert (seen < times[row, column, 0]).all()
    assert order.tolist() == list(range(grid.size)), "a lag of the width is raster order"


def test_a_walk_by_fronts_draws_what_the_plan_says() -> None:
    """Symbol i is drawn from logits i with noise i, whatever the order; known symbols stay; the count adds up."""
    grid = GRIDS[1]
    known = torch.zeros(3, *grid.shape, dtype=torch.int64)
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[1, 2:4] = True
    for sampling in (Sampling(0.7, top_p=0.9), Sampling(noise="gumbel")):
        generator = torch.Generator().manual_seed(1)
        plan = SamplingPlan.of(grid, 3, sampling=sampling, known=known, mask=mask, generator=generator)
        decoder, sequence = Scripted(grid, 3, 1), torch.full((3, grid.size), -1)
        counts = list(walk(decoder, plan, sequence))
        assert torch.equal(sequence, plan.draw(decoder.table, slice(None)))
        assert counts == torch.tensor([len(places) for places in decoder.places]).cumsum(0).tolist()
        assert torch.equal(torch.cat(decoder.told, 1), sequence[:, torch.cat(decoder.places)])


def test_guided_fronts_tell_both_halves() -> None:
    """Logits are those of ``guided``; what is drawn is fixed in the told and in the untold grids."""
    both = Scripted(GRIDS[0], 4, 2)
    decoder = GuidedWavefrontDecoder(both, 1.5)
    expected = guided(both.table[:, both.places[0]], 1.5)
    assert torch.equal(decoder.logits(), expected)
    decoder.advance(torch.tensor([[1], [2]]))
    assert both.told[0].tolist() == [[1], [2], [1], [2]]
    assert both.number == decoder.number == 1


def test_refuses_a_lag_and_a_walk_past_the_end() -> None:
    for lag in (0, 6):
        with pytest.raises(InputError, match=f"lag is {lag}, expected 1 to the grid's width, 5"):
            wavefronts(GRIDS[0], lag)
    decoder = Scripted(Grid(1, 1, 1, 2), 1, 1)
    decoder.advance(torch.tensor([[0]]))
    for past in (decoder.logits, lambda: decoder.advance(torch.tensor([[0]]))):
        with pytest.raises(InputError, match="grid is full: all 1 symbols"):
            past()
