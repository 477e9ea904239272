"""Row LSTM: the shared suite, the paper's equations, and its triangular context."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.pixel_rnn.row_lstm import RowLSTM
from pixel_baselines.pixel_rnn.row_lstm_layer import RowLSTMConfig, RowLSTMLayer
from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid, Site
from tests.autoregressive_suite import AutoregressiveSuite, random_symbols, randomized


def small(grid: Grid, classes: tuple[str, ...] = (), **fields: object) -> RowLSTM:
    settings = {"depth": 2, "width": 24, "output_width": 36, **fields}
    return RowLSTM(RowLSTMConfig(grid=grid, classes=classes, **settings))  # type: ignore[arg-type]


class TestRowLSTM(AutoregressiveSuite):
    blind_spot = True

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> RowLSTM:
        return small(grid, classes)


class TestRowLSTMOverCodes(AutoregressiveSuite):
    """Symbols without an order, more than 256 of them, read as learned vectors; another kernel."""

    blind_spot = True
    grids: ClassVar = [Grid(1, 4, 5, 300), Grid(2, 3, 3, 5)]
    tiny_grids: ClassVar = [Grid(2, 2, 1, 4)]

    def build(self, grid: Grid, classes: tuple[str, ...] = ()) -> RowLSTM:
        return small(grid, classes, embedding="learned", embedding_width=3, kernel=5, input_kernel=3)


def triangle(config: RowLSTMConfig, site: Site) -> Tensor:
    """The symbols that the geometry of the kernels lets a site see: bool ``(C, H, W)``."""
    grid, p, q = config.grid, config.kernel // 2, config.input_kernel // 2
    seen = torch.zeros(grid.shape, dtype=torch.bool)
    seen[: site.channel, site.row, site.column] = True
    for row in range(site.row + 1):
        climbed = site.row - row
        left = site.column - (climbed + config.depth) * p - q
        # Either a state reads its row up to the symbol left of it, or one a row below reaches up by mask A.
        right = min(site.column + climbed * p, grid.width - 1) - 1
        if climbed:
            right = max(right, site.column + (climbed - 1) * p + q)
        seen[:, row, max(left, 0) : right + 1] = True
    return seen


@pytest.mark.parametrize(
    ("grid", "fields"),
    [
        (Grid(1, 5, 15, 2), {"depth": 1, "input_kernel": 3}),
        (Grid(1, 4, 14, 5), {"depth": 2}),
        (Grid(1, 3, 15, 2), {"depth": 1, "kernel": 7, "input_kernel": 3}),
        (Grid(3, 3, 9, 4), {"depth": 2, "input_kernel": 3}),
    ],
    ids=str,
)
def test_context_is_exactly_the_triangle(grid: Grid, fields: dict[str, int]) -> None:
    """The symbols with a gradient are those that the kernels' geometry predicts, at every site."""
    model = randomized(small(grid, **fields), 0.1)
    inputs = model.embed(random_symbols(grid, 1)).requires_grad_()
    logits = grid.flatten(model.logits_from(inputs))
    weights = torch.randn(grid.levels, dtype=torch.float64)
    blind = 0
    for index in range(grid.size):
        site = grid.site(index)
        (gradient,) = torch.autograd.grad((logits[0, index] * weights).sum(), inputs, retain_graph=True)
        expected = triangle(model.config, site)
        assert torch.equal(gradient[0] != 0, expected), f"{site}"
        blind += index - int(expected.sum())
    assert blind > 0, "this grid is too narrow to show the blind spot"


def test_layer_is_the_papers_equations() -> None:
    """A layer equals the paper's equation 3 with whole masked k×1 kernels, a row at a time (RGB groups)."""
    grid, width = Grid(3, 4, 6, 2), 6
    model = randomized(small(grid, depth=1, width=2 * width))
    layer = model.layers[0]
    assert isinstance(layer, RowLSTMLayer)
    x = torch.randn(4, 6, 2, 2 * width, dtype=torch.float64)

    taps = layer.input_weight.view(4 * width, 2, 2 * width).permute(0, 2, 1)  # left of the site, the site
    kernel = torch.cat([taps, torch.zeros_like(taps[..., :1])], -1)
    for gate in range(4):
        for out in range(width):
            kernel[gate * width + out, 4 * (out // 2 + 1) :, 1] = 0  # mask B: groups of 2 read groups of 4
    state_kernel = layer.state_weight.view(4 * width, 3, width).permute(0, 2, 1)

    state = cell = torch.zeros(2, width, 6, dtype=torch.float64)
    for row in range(4):
        gates = F.conv1d(x[row].permute(1, 2, 0), kernel, layer.bias[0], padding=1)
        gates = gates + F.conv1d(state, state_kernel, padding=1)
        o, f, i, g = gates.chunk(4, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
        hidden = layer.hidden_map(x, torch.zeros(2, dtype=torch.int64))[row]
        assert torch.allclose(hidden, state.permute(2, 0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 4])
def test_refuses_a_kernel_that_is_not_centred(kernel: int) -> None:
    """A kernel without a centre, or that does not see the row, is refused by name."""
    with pytest.raises(InputError, match=f"kernel is {kernel}"):
        RowLSTMConfig(kernel=kernel)
