"""Two grids in one: a top grid, and below it a bottom grid of twice as many rows and columns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid

SCALE = 2
"""Rows of the bottom grid for each of the top grid's, and columns likewise."""

ROWS = 1 + SCALE**2
"""Rows of the joint grid for each of the top grid's."""


class TopAndBottom(NamedTuple):
    """Values of both grids, ``(B, C, h, w, ...)`` and ``(B, C, 2h, 2w, ...)``."""

    top: Tensor
    bottom: Tensor


@dataclass(frozen=True)
class TwoGrids:
    """A top grid and a bottom grid, which are modelled and stored as one joint grid.

    The joint grid has the rows of the top grid, and then those of the bottom grid, each cut in two at the width of the
    top grid. So its raster order is that of the top grid, and then that of the bottom grid.

    Attributes:
        top: h rows and w columns.
        bottom: 2h rows and 2w columns, as many channels and levels.

    Example:
        >>> import torch
        >>> from rasterwise import Grid
        >>> grids = TwoGrids.below(Grid(1, 1, 2, 9))
        >>> grids.bottom, grids.joint
        (Grid(channels=1, height=2, width=4, levels=9), Grid(channels=1, height=5, width=2, levels=9))
        >>> top, bottom = torch.tensor([[[[1, 2]]]]), torch.arange(8).view(1, 1, 2, 4)
        >>> grids.joint.flatten(joined(top, bottom)).tolist()
        [[1, 2, 0, 1, 2, 3, 4, 5, 6, 7]]
    """

    top: Grid
    bottom: Grid

    @classmethod
    def below(cls, top: Grid) -> TwoGrids:
        """A top grid and the bottom grid that belongs to it."""
        bottom = dataclasses.replace(top, height=SCALE * top.height, width=SCALE * top.width)
        return cls(top, bottom)

    @classmethod
    def within(cls, joint: Grid) -> TwoGrids:
        """The grids that a joint grid consists of.

        Raises:
            InputError: There is no whole number of rows for each.
        """
        if joint.height % ROWS:
            raise InputError(
                f"a grid of {joint} is not two grids in one, whose height is a multiple of {ROWS}; codes of two grids "
                "come from a tokenizer that was trained with --grids 2"
            )
        return cls.below(dataclasses.replace(joint, height=joint.height // ROWS))

    @property
    def joint(self) -> Grid:
        """Both grids as one."""
        return dataclasses.replace(self.top, height=ROWS * self.top.height)


def joined(top: Tensor, bottom: Tensor) -> Tensor:
    """Values of both grids, ``(B, C, h, w, ...)`` and ``(B, C, 2h, 2w, ...)``, as those of the joint grid.

    Returns:
        ``(B, C, 5h, w, ...)``.
    """
    return torch.cat([top, bottom.unflatten(3, (SCALE, -1)).flatten(2, 3)], 2)


def separated(values: Tensor) -> TopAndBottom:
    """Values of a joint grid, ``(B, C, 5h, w, ...)``, as those of both grids."""
    rows = values.shape[2] // ROWS
    top, bottom = values.split([rows, SCALE**2 * rows], 2)
    return TopAndBottom(top, bottom.unflatten(2, (-1, SCALE)).flatten(3, 4))
