"""The loop's overhead is what its name says. No test of a time."""

from __future__ import annotations

import pytest
import torch

from benchmarks.loop import InterleavedSplit, LoopTimes, measure_loop
from rasterwise.data.indexed import tensor_split
from rasterwise.training.config import TrainingConfig
from tests.rasterwise.training.test_loop import prior_objective, random_symbols


def test_overhead_is_the_share_that_a_bare_step_does_without() -> None:
    """Of the loop's step, by medians: an odd slow step changes nothing."""
    times = LoopTimes(loop_seconds=[1.0, 1.0, 30.0], bare_seconds=[0.96, 0.96, 0.1])
    assert times.overhead == pytest.approx(0.04)
    assert times.figures()["loop_overhead"] == times.overhead
    assert LoopTimes([1.0], [1.1]).overhead == pytest.approx(-0.1)


def test_a_bare_step_comes_before_each_batch() -> None:
    """And is not in the loop's time: that runs from one batch's demand to the next one's."""
    split = tensor_split(torch.arange(6).view(6, 1, 1, 1))
    done: list[str] = []
    interleaved = InterleavedSplit(split, lambda: done.append("bare"), torch.device("cpu"))
    batches = interleaved.shuffled(2, seed=0)
    expected = split.shuffled(2, seed=0)
    for number in range(3):
        assert torch.equal(next(batches).values, next(expected).values)
        done.append("loop")
        assert (len(interleaved.times.bare_seconds), len(interleaved.times.loop_seconds)) == (
            number + 1,
            number,
        )
    assert done == ["bare", "loop"] * 3


def test_the_real_loop_is_measured() -> None:
    """Of its steps the warm-up and the last one, which evaluation and saving follow, are left out."""
    objective, steps = prior_objective(), 0

    def bare() -> None:
        nonlocal steps
        steps += 1

    config = TrainingConfig(steps=6, batch_size=4, evaluate_every=6, device="cpu")
    split = tensor_split(random_symbols(objective.model.grid, 8))
    times = measure_loop(objective, split, bare, config, warmup_steps=2)
    assert steps == 6
    assert len(times.loop_seconds) == 3
