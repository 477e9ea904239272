"""What every decoder does, whatever it computes: steps in any order, guidance, and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rasterwise.decoding.decoder import Decoder, GuidedDecoder, NaiveDecoder
from rasterwise.decoding.sampling import guided
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.order import wavefront_order
from tests.autoregressive_suite import decoded_logits

GRID = Grid(3, 5, 2, 4)


class Scripted(Decoder):
    """Gives each symbol logits of its own; keeps what it was given, and counts how often it computed."""

    def __init__(self, grid: Grid, batch_size: int, steps: list[Tensor]) -> None:
        super().__init__(grid, batch_size, steps)
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(batch_size, grid.size, grid.levels, generator=generator)
        self.given: list[Tensor] = []
        self.computed = 0

    def _logits(self) -> Tensor:
        self.computed += 1
        return self.table[:, self.steps[self.index]]

    def _advance(self, symbols: Tensor) -> None:
        self.given.append(torch.eye(self.grid.levels).index_select(0, symbols.flatten()))


class Table:
    """A teacher-forced model of x_i given the sum of all symbols before it, without a network."""

    device = torch.device("cpu")

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randn(50, grid.levels, generator=generator, dtype=torch.float64)
        self.passes = 0

    def __call__(self, symbols: Tensor, condition: Condition | None = None) -> Tensor:
        self.passes += 1
        sequence = self.grid.flatten(symbols)
        before = sequence.cumsum(1) - sequence
        if condition is not None and condition.label is not None:
            before = before + condition.label[:, None]
        return self.grid.unflatten(self.rows[before % len(self.rows)])


def test_a_step_is_computed_once_and_whether_or_not_it_is_asked_for() -> None:
    """Asking twice gives the same tensor; advancing unasked computes what later steps need."""
    decoder = Scripted(GRID, 2, wavefront_order(GRID, 1))
    first = decoder.logits()
    assert decoder.logits() is first
    assert first.shape == (2, 1, GRID.levels)
    for positions in decoder.steps:
        decoder.advance(torch.zeros(2, len(positions), dtype=torch.int64))
    assert decoder.computed == len(decoder.steps) == decoder.index


def test_gradients_are_not_kept() -> None:
    """Decoding is no part of a graph, wherever it is called."""
    decoder = Scripted(GRID, 2, wavefront_order(GRID, 1))
    decoder.table.requires_grad_()
    assert not decoder.logits().requires_grad


def test_the_naive_decoder_gives_teacher_forced_logits() -> None:
    """A pass a symbol, on the condition."""
    model, condition = Table(GRID), Condition(torch.tensor([3, 1]))
    symbols = torch.randint(4, (2, *GRID.shape), generator=torch.Generator().manual_seed(1))
    expected = GRID.flatten(model(symbols, condition))
    model.passes = 0
    assert torch.equal(decoded_logits(NaiveDecoder(model, 2, condition), symbols), expected)
    assert model.passes == GRID.size


def test_the_naive_decoder_takes_any_steps() -> None:
    """A step of several positions is one pass; it sees what earlier steps have fixed, and zeros elsewhere."""
    model, steps = Table(GRID), list(torch.arange(GRID.size).split(7))
    decoder = NaiveDecoder(model, 1, steps=steps)
    symbols = torch.randint(4, (1, GRID.size), generator=torch.Generator().manual_seed(1))
    seen = torch.zeros_like(symbols)
    for positions in steps:
        expected = GRID.flatten(model(GRID.unflatten(seen)))[:, positions]
        assert torch.equal(decoder.logits(), expected)
        decoder.advance(symbols[:, positions])
        seen[:, positions] = symbols[:, positions]


@pytest.mark.parametrize("lag", [1, 2])  # in wavefronts, and in raster order
def test_guidance_decodes_both_halves(lag: int) -> None:
    """Logits are those of ``guided``; what is drawn is fixed in the conditional and in the unconditional grids."""
    both = Scripted(GRID, 4, wavefront_order(GRID, lag))
    decoder = GuidedDecoder(both, 1.5)
    assert decoder.batch_size == 2
    for positions in decoder.steps:
        assert torch.equal(decoder.logits(), guided(both.table[:, positions], 1.5))
        drawn = torch.tensor([[1], [2]]).expand(2, len(positions))
        decoder.advance(drawn)
        assert torch.equal(both.given[-1].argmax(-1), drawn.repeat(2, 1).flatten())
    assert both.index == decoder.index == len(decoder.steps)


def test_what_a_replay_does_is_counted_in_both_halves() -> None:
    """``skip`` goes on in the decoder that computes, too."""
    both = Scripted(GRID, 4, wavefront_order(GRID, 1))
    decoder = GuidedDecoder(both, 1.5)
    decoder.skip(3)
    assert both.index == decoder.index == 3


@pytest.mark.parametrize(
    ("symbols", "said"),
    [
        (torch.tensor([[4], [0]]), r"symbols lie in \[0, 4\], expected \[0, 3\]"),
        (torch.tensor([[0], [-1]]), r"symbols lie in \[-1, 0\], expected \[0, 3\]"),
        (torch.tensor([[0]]), r"symbols are torch.int64 \(1, 1\), expected int64 \(2, 1\)"),
        (torch.tensor([0, 0]), r"symbols are torch.int64 \(2,\), expected int64 \(2, 1\)"),
        (torch.zeros(2, 2, dtype=torch.int64), r"symbols are torch.int64 \(2, 2\)"),
        (torch.zeros(2, 1), "symbols are torch.float32"),
        (torch.zeros(2, 1, dtype=torch.int32), "symbols are torch.int32"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["cached", "naive", "guided"])
def test_symbols_that_do_not_fit_are_refused(kind: str, symbols: Tensor, said: str) -> None:
    """By name; the decoder is where it was and can go on."""
    decoder = {
        "cached": Scripted(GRID, 2, wavefront_order(GRID, 2)),
        "naive": NaiveDecoder(Table(GRID), 2),
        "guided": GuidedDecoder(Scripted(GRID, 4, wavefront_order(GRID, 2)), 2.0),
    }[kind]
    with pytest.raises(InputError, match=said):
        decoder.advance(symbols)
    assert decoder.index == 0
    decoder.advance(torch.zeros(2, 1, dtype=torch.int64))
    assert decoder.index == 1


def test_past_the_end_is_refused() -> None:
    """Neither logits nor symbols."""
    grid = Grid(1, 1, 1, 2)
    decoder = Scripted(grid, 1, wavefront_order(grid, 1))
    decoder.advance(torch.tensor([[0]]))
    for past in (decoder.logits, lambda: decoder.advance(torch.tensor([[0]]))):
        with pytest.raises(InputError, match="grid is full: all 1 symbols"):
            past()
