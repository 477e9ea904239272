"""What a training may cost: wall-clock seconds, optimizer steps, or FLOPs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from rasterwise.errors import InputError

PATTERN = re.compile(r"(?P<amount>\d+(\.\d*)?([eE]\+?\d+)?)\s*(?P<unit>[a-z]+)")
SECONDS = {"s": 1, "m": 60, "h": 3600}
EXAMPLES = "90s, 10m, 1h, 500steps or 2e15flops"


class OverBudgetError(RuntimeError):
    """Not even one training step fits into the budget."""


@dataclass(frozen=True)
class Budget:
    """What training may cost; evaluation does not count.

    Attributes:
        amount: How many of the unit.
        unit: What is counted.

    Example:
        >>> Budget.parse("10m"), Budget.parse("500steps").half
        (Budget(amount=600.0, unit='seconds'), Budget(amount=250.0, unit='steps'))
    """

    amount: float
    unit: Literal["seconds", "steps", "flops"]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget that a flag gives.

        Raises:
            InputError: The text is no budget, or one of nothing.
        """
        found = PATTERN.fullmatch(text.strip())
        unit = found["unit"] if found else ""
        amount = float(found["amount"]) if found else 0.0
        if amount > 0 and unit in SECONDS:
            return cls(amount * SECONDS[unit], "seconds")
        if amount > 0 and unit == "flops":
            return cls(amount, "flops")
        if amount >= 1 and unit in ("step", "steps") and amount == int(amount):
            return cls(amount, "steps")
        raise InputError(f"budget is {text!r}, expected a time, a number of steps or of FLOPs: {EXAMPLES}")

    @property
    def half(self) -> Budget:
        """What each of two stages gets. Of an odd number of steps, one is left over."""
        return replace(self, amount=self.amount // 2 if self.unit == "steps" else self.amount / 2)

    def steps(self, *, step_seconds: float, flops_a_step: int) -> int:
        """How many training steps fit.

        Args:
            step_seconds: What one step takes on this machine.
            flops_a_step: Forward and backward.

        Raises:
            OverBudgetError: Not even one fits.
        """
        cost = {"seconds": step_seconds, "steps": 1.0, "flops": float(flops_a_step)}[self.unit]
        count = int(self.amount / cost)
        if not count:
            raise OverBudgetError(f"one training step costs {cost:.3g} {self.unit} of {self.amount:.3g}")
        return count

    def __str__(self) -> str:
        amount = f"{self.amount:,.0f}" if self.amount < 1e6 else f"{self.amount:.3g}"
        return f"{amount} {self.unit}"
