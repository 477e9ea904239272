"""Decoding orders take every position once, after all that it may depend on."""

from __future__ import annotations

import pytest
import torch

from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.order import checked_order, raster_order, spread_order, wavefront_order, wavefronts

GRIDS = [Grid(1, 4, 5, 3), Grid(3, 5, 2, 4), Grid(2, 1, 6, 2), Grid(1, 6, 1, 2)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_raster_order_is_one_position_a_step(grid: Grid) -> None:
    """0 to N − 1."""
    steps = raster_order(grid)
    assert all(positions.shape == (1,) and positions.dtype == torch.int64 for positions in steps)
    assert torch.cat(list(steps)).tolist() == list(range(grid.size))
    assert [one.tolist() for one in (*steps[1:3], steps[-1])] == [[1], [2], [grid.size - 1]]
    with pytest.raises(IndexError):
        steps[grid.size]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_wavefronts_take_every_symbol_once_and_rows_keep_their_distance(grid: Grid) -> None:
    """At any lag; a symbol comes after those of its row before it, and those above up to lag − 1 columns on."""
    for lag in range(1, grid.width + 1):
        steps = wavefront_order(grid, lag)
        order = torch.cat(steps)
        assert sorted(order.tolist()) == list(range(grid.size))
        when = torch.empty(grid.size, dtype=torch.int64)
        for index, positions in enumerate(steps):
            when[positions] = index
        times = when.view(grid.height, grid.width, grid.channels)
        assert (times.flatten(1).diff(dim=1) > 0).all()
        for row in range(1, grid.height):
            for column in range(grid.width):
                seen = times[row - 1, : column + lag]
                assert (seen < times[row, column, 0]).all()
    assert order.tolist() == list(range(grid.size)), "a lag of the width is raster order"


@pytest.mark.parametrize("lag", [0, 6])
def test_a_lag_that_does_not_fit_is_refused(lag: int) -> None:
    """The message names the lag and the width."""
    with pytest.raises(InputError, match=f"lag is {lag}, expected 1 to the grid's width, 5"):
        wavefronts(GRIDS[0], lag)


@pytest.mark.parametrize("grid", [*GRIDS, Grid(1, 8, 8, 4)], ids=str)
def test_spread_steps_take_every_symbol_once(grid: Grid) -> None:
    """In any number of steps, each with a position; the later ones take the most."""
    for steps in range(1, grid.size + 1):
        order = spread_order(grid, steps)
        sizes = [len(positions) for positions in order]
        assert len(order) == steps
        assert min(sizes) >= 1
        assert sum(sizes[: steps // 2]) <= sum(sizes[steps - steps // 2 :])
        assert [one.tolist() for one in checked_order(grid, order)] == [one.tolist() for one in order]
        channels = torch.cat(order) % grid.channels
        assert (channels.diff() >= 0).all(), "a site has its first channel before any has its second"


def test_spread_steps_keep_neighbours_apart() -> None:
    """On 8×8 sites, no two of the first 16 are neighbours in a row or a column, nor are those of an early step."""
    order = torch.cat(spread_order(Grid(1, 8, 8, 4), 64))
    rows, columns = order // 8, order % 8
    distance = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    nearest = torch.stack([distance[i, :i].min() for i in range(1, 64)])
    assert (nearest.diff() <= 1).all()
    assert (nearest[:15] >= 2).all()
    for positions in spread_order(Grid(1, 8, 8, 4), 16)[:8]:
        among = torch.isin(order, positions)
        apart = distance[among][:, among]
        assert (apart + 9 * torch.eye(len(positions)) >= 2).all()


@pytest.mark.parametrize("steps", [0, 61])
def test_steps_that_do_not_fit_are_refused(steps: int) -> None:
    """The message names the steps and the symbols."""
    with pytest.raises(InputError, match=f"steps is {steps}, expected 1 to 20"):
        spread_order(GRIDS[0], steps)
