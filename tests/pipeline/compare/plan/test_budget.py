"""Budgets: what a flag may say, and how many steps it comes to."""

from __future__ import annotations

import pytest

from pipeline.compare.plan.budget import Budget, OverBudgetError
from rasterwise.errors import InputError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90s", Budget(90, "seconds")),
        ("10m", Budget(600, "seconds")),
        ("1h", Budget(3600, "seconds")),
        ("1.5h", Budget(5400, "seconds")),
        ("500steps", Budget(500, "steps")),
        ("1 step", Budget(1, "steps")),
        ("2e15flops", Budget(2e15, "flops")),
    ],
)
def test_budgets(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    "text", ["", "10", "m", "0m", "0steps", "-5m", "1.5steps", "10 minutes", "ten m", "5x", "nans"]
)
def test_what_is_no_budget(text: str) -> None:
    """One line that says what came and what was expected."""
    with pytest.raises(InputError, match=r"budget is .*expected a time, a number of steps or of FLOPs: 90s"):
        Budget.parse(text)


def test_steps_that_fit() -> None:
    """Seconds by the step's time, FLOPs by its FLOPs; what fits in part does not fit."""
    assert Budget.parse("10s").steps(step_seconds=0.3, flops_a_step=7) == 33
    assert Budget.parse("1e6flops").steps(step_seconds=0.3, flops_a_step=300_000) == 3
    assert Budget.parse("12steps").steps(step_seconds=1e9, flops_a_step=10**18) == 12


def test_not_even_one_step() -> None:
    with pytest.raises(OverBudgetError, match="one training step costs 30 seconds of 10"):
        Budget.parse("10s").steps(step_seconds=30.0, flops_a_step=1)
    with pytest.raises(OverBudgetError):
        Budget.parse("1step").half.steps(step_seconds=0.0, flops_a_step=1)


def test_halves() -> None:
    """Steps stay whole."""
    assert Budget.parse("7steps").half == Budget(3, "steps")
    assert Budget.parse("1m").half == Budget(30, "seconds")
