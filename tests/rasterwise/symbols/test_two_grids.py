"""Two grids in one."""

from __future__ import annotations

import pytest
import torch

from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.two_grids import TwoGrids, joined, separated


@pytest.mark.parametrize("top", [Grid(1, 2, 3, 7), Grid(3, 1, 2, 4), Grid(2, 4, 1, 5)], ids=str)
def test_the_joint_raster_order_is_the_tops_and_then_the_bottoms(top: Grid) -> None:
    """Also of values with further dimensions; and what is joined is separated again."""
    grids = TwoGrids.below(top)
    parts = [torch.randn(2, *grid.shape, 3) for grid in (grids.top, grids.bottom)]
    values = joined(*parts)
    assert values.shape == (2, *grids.joint.shape, 3)
    in_turn = torch.cat([grids.top.flatten(parts[0]), grids.bottom.flatten(parts[1])], 1)
    assert torch.equal(grids.joint.flatten(values), in_turn)
    assert all(map(torch.equal, separated(values), parts))
    assert TwoGrids.within(grids.joint) == grids
    assert grids.joint.size == grids.top.size + grids.bottom.size


def test_another_grid_is_refused() -> None:
    with pytest.raises(InputError, match=r"1×16×8 of 4 levels is not two grids in one.*--grids 2"):
        TwoGrids.within(Grid(1, 16, 8, 4))
