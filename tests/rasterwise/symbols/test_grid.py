"""Grids: raster order, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid, Site


def test_raster_order_is_rows_then_columns_then_channels() -> None:
    """flatten puts the symbol of site(i) at position i."""
    grid = Grid(3, 2, 4, 100)
    symbols = torch.arange(24).reshape(1, 3, 2, 4)
    sequence = grid.flatten(symbols)[0]
    for index in range(grid.size):
        site = grid.site(index)
        assert sequence[index] == symbols[0, site.channel, site.row, site.column]
    assert grid.site(0) == Site(0, 0, 0)
    assert grid.site(3) == Site(0, 1, 0)
    assert grid.site(23) == Site(1, 3, 2)


def test_unflatten_undoes_flatten_and_keeps_trailing_dimensions() -> None:
    """Logits with a trailing K go the same way as symbols."""
    grid = Grid(3, 2, 4, 5)
    logits = torch.randn(2, 3, 2, 4, 5)
    assert torch.equal(grid.unflatten(grid.flatten(logits)), logits)


@pytest.mark.parametrize("sizes", [(0, 2, 2, 2), (1, 0, 2, 2), (1, 2, -1, 2), (1, 2, 2, 1)])
def test_impossible_grids_are_refused(sizes: tuple[int, int, int, int]) -> None:
    """A grid needs a symbol and two levels."""
    with pytest.raises(InputError, match=r"(channels|height|width|levels) is -?[01], expected [12] or more"):
        Grid(*sizes)
