"""Diagonal BiLSTM: the shared suite, the paper's equations, and its full context."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from pixel_baselines.pixel_rnn.diagonal_bilstm import DiagonalBiLSTM
from pixel_baselines.pixel_rnn.diagonal_bilstm_layer import (
    DiagonalBiLSTMConfig,
    DiagonalBiLSTMLayer,
    Diagonals,
)
from rasterwise.symbols.grid import Grid
from tests.autoregressive_suite import AutoregressiveSuite, random_symbols, randomized


def small(grid: Grid, classes: tuple[str, ...] = (), **fields: object) -> DiagonalBiLSTM:
    settings = {"depth": 2, "width": 24, "output_width": 36, **fields}
    return DiagonalBiLSTM(DiagonalBiLSTMConfig(grid=grid, classes=classes, **settings))  # type: ignore[arg-type]


class TestDiagonalBiLSTM(AutoregressiveSuite):
    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> DiagonalBiLSTM:
        return small(grid, classes)


class TestDiagonalBiLSTMOverCodes(AutoregressiveSuite):
    """Symbols without an order, more than 256 of them, read as learned vectors; higher than wide; one row."""

    grids: ClassVar = [Grid(1, 5, 3, 300), Grid(2, 3, 3, 5), Grid(1, 6, 1, 4)]
    tiny_grids: ClassVar = [Grid(2, 2, 1, 4), Grid(1, 1, 4, 3)]

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> DiagonalBiLSTM:
        return small(grid, classes, embedding="learned", embedding_width=3, input_kernel=3)


def reached(model: DiagonalBiLSTM) -> Tensor:
    """Which symbols every symbol's logits have a gradient to: bool ``(N, N)`` in raster order."""
    grid = model.grid
    inputs = model.embed(random_symbols(grid, 1)).requires_grad_()
    logits = grid.flatten(model.logits_from(inputs))
    weights = torch.randn(grid.levels, dtype=torch.float64)
    gradients = [
        torch.autograd.grad((logits[0, index] * weights).sum(), inputs, retain_graph=True)[0]
        for index in range(grid.size)
    ]
    return grid.flatten(torch.cat(gradients)) != 0


@pytest.mark.parametrize("grid", [Grid(1, 4, 14, 3), Grid(1, 9, 3, 2), Grid(3, 3, 8, 4)], ids=str)
def test_context_is_all_that_came_before(grid: Grid) -> None:
    """One layer above a small first kernel sees every earlier symbol and no other, on wide and high grids."""
    model = randomized(small(grid, depth=1, input_kernel=3), 0.1)
    assert torch.equal(reached(model), torch.ones(grid.size, grid.size).tril(-1).bool())


def test_without_its_extra_column_the_end_of_the_row_above_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gap that the extra column closes is exactly the last symbol of the row above, seen from afar."""
    monkeypatch.setattr(DiagonalBiLSTM, "extra_columns", 0)
    grid, reach = Grid(1, 3, 6, 2), 1
    expected = torch.ones(grid.size, grid.size).tril(-1).bool()
    for row in range(1, grid.height):
        for column in range(grid.width - 1 - reach):
            expected[row * grid.width + column, row * grid.width - 1] = False
    assert torch.equal(reached(randomized(small(grid, depth=2, input_kernel=3), 0.1)), expected)


def test_layer_is_the_papers_equations() -> None:
    """A layer equals the paper's recurrence written out site by site (RGB groups), both directions."""
    grid, width = Grid(3, 4, 5, 2), 6
    layer = randomized(small(grid, depth=1, width=2 * width)).layers[0]
    assert isinstance(layer, DiagonalBiLSTMLayer)
    height, columns = 4, 6  # the map has a column more than the grid
    x = torch.randn(height, columns, 2, 2 * width, dtype=torch.float64)
    mask = torch.zeros(2 * width, 4, width, dtype=torch.float64)
    for out in range(width):
        mask[: 4 * (out // 2 + 1), :, out] = 1  # mask B: groups of 2 read groups of 4
    zero = torch.zeros(2, width, dtype=torch.float64)

    def states(direction: int, step: int) -> dict[tuple[int, int], Tensor]:
        h: dict[tuple[int, int], Tensor] = {}
        c: dict[tuple[int, int], Tensor] = {}
        for row in range(height):
            for column in range(columns)[::step]:
                along, above = (row, column - step), (row - 1, column)
                gates = (
                    x[row, column] @ (layer.input_weight[direction] * mask.flatten(1)) + layer.bias[direction]
                )
                gates = gates + h.get(along, zero) @ layer.state_weight[direction, :width]
                gates = gates + h.get(above, zero) @ layer.state_weight[direction, width:]
                o, f, i, g = gates.chunk(4, 1)
                c[row, column] = f.sigmoid() * c.get(along, zero) + i.sigmoid() * g.tanh()
                h[row, column] = o.sigmoid() * c[row, column].tanh()
        return h

    left, right = states(0, 1), states(1, -1)
    hidden = layer.hidden_map(x, torch.zeros(2, dtype=torch.int64))
    for (row, column), state in left.items():
        expected = state + right.get((row - 1, column), zero)
        assert torch.allclose(hidden[row, column], expected, rtol=0, atol=1e-12), (row, column)


@pytest.mark.parametrize(("height", "width"), [(1, 4), (5, 1), (3, 5), (5, 3)])
def test_diagonals_hold_every_site_once(height: int, width: int) -> None:
    """A diagonal's sites follow one another from its top row down, a column left a row; mirrored, right."""
    for mirrored in (False, True):
        diagonals = Diagonals.of(height, width, mirrored=mirrored)
        assert sorted(diagonals.order.tolist()) == list(range(height * width))
        for diagonal, sites in enumerate(diagonals.order.split(diagonals.lengths)):
            rows = sites // width
            columns = width - 1 - sites % width if mirrored else sites % width
            assert (rows + columns == diagonal).all()
            assert rows.tolist() == list(range(diagonals.first_rows[diagonal], int(rows[-1]) + 1))
