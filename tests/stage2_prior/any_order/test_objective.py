"""Training in random orders: what is drawn when, and that a resumed training draws the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rasterwise.data.splits import Batch
from rasterwise.symbols.grid import Grid
from stage2_prior.any_order.objective import AnyOrderObjective
from tests.autoregressive_suite import random_symbols
from tests.rasterwise.training.test_loop import SHORT, assert_same_end, replace, run_training
from tests.stage2_prior.any_order.test_model import small

GRID = Grid(1, 3, 3, 5)
RASTER = torch.arange(GRID.size)


def objective(final_random_share: float = 0.0, seed: int = 0) -> AnyOrderObjective:
    torch.manual_seed(0)
    model = small(GRID, ("a", "b"), final_random_share=final_random_share, dropout=0.2)
    return AnyOrderObjective(model, seed=seed, label_dropout=0.5)


def test_random_orders_give_way_to_raster_order() -> None:
    """Their probability is 1 at first, falls linearly, and ends where the model says."""
    for final in (0.0, 0.4, 1.0):
        one = objective(final)
        shares = [one.random_share_after(done) for done in (0, 0.5, 0.625, 0.75, 1)]
        assert shares == pytest.approx([1, 1, (1 + final) / 2, final, final])

    def drawn(final: float, step: int) -> Tensor:
        one = objective(final)
        one.begin_step(step, 1000)
        return one.sequences(4000)

    for final, step, share in ((0.0, 0, 1.0), (0.0, 625, 0.5), (0.25, 999, 0.25), (0.0, 750, 0.0)):
        sequences = drawn(final, step)
        assert torch.equal(sequences.sort(1).values, RASTER.expand(4000, -1))
        assert (sequences != RASTER).any(1).double().mean().item() == pytest.approx(share, abs=0.03)
    first = drawn(0.0, 0)[:, 0].bincount(minlength=GRID.size)
    assert first.min() > 350, "every position comes first as often as any other"


def test_orders_depend_on_seed_and_step_alone() -> None:
    """Not on what was drawn before; another step or seed has others."""
    one, other = objective(1.0), objective(1.0)
    for step in range(5):
        one.begin_step(step, 10)
        one.sequences(3)
    other.begin_step(4, 10)
    again = other.sequences(3)
    one.begin_step(4, 10)
    assert torch.equal(one.sequences(3), again)
    one.begin_step(5, 10)
    assert not torch.equal(one.sequences(3), again)
    reseeded = objective(1.0, seed=1)
    reseeded.begin_step(4, 10)
    assert not torch.equal(reseeded.sequences(3), again)


def test_the_loss_is_the_likelihood_in_the_orders_drawn() -> None:
    """A mean over grids and symbols, in nats; at the end it is that of raster order."""
    one, symbols = objective(), random_symbols(GRID, 4)
    one.model.eval()
    for step, random in ((0, True), (9, False)):
        one.begin_step(step, 10)
        losses = one(Batch(symbols))
        one.begin_step(step, 10)
        nats = one.model.log_prob_in_orders(symbols, None, one.sequences(4)).mean()
        torch.testing.assert_close(losses.total, -nats / GRID.size)
        torch.testing.assert_close(losses.shown["nll_nats"], -nats.detach())
        raster = -one.model.log_prob(symbols).mean()
        assert torch.allclose(losses.total * GRID.size, raster) != random


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_stopped_run_ends_in_the_same_weights(accumulate: int, tmp_path: Path) -> None:
    """Stopped in the midst of the annealing and resumed, bit for bit."""
    config = replace(SHORT, accumulate=accumulate)
    run_training(objective(), tmp_path / "whole", config)
    report = run_training(objective(), tmp_path / "parts", config, stop_after=5 * accumulate)
    assert report.stopped
    run_training(objective(), tmp_path / "parts", config)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
