"""Where the seconds of a training session go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Literal

Purpose = Literal["evaluation", "saving", "waiting"]


class Stopwatch:
    """Wall-clock seconds since a training began or was resumed, and what they were spent on.

    Example:
        >>> clock = Stopwatch()
        >>> with clock.timing("evaluation"):
        ...     _ = sum(range(10))
        >>> 0 < clock.spent["evaluation"] < clock.seconds
        True
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.spent: dict[Purpose, float] = {"evaluation": 0.0, "saving": 0.0, "waiting": 0.0}

    @contextlib.contextmanager
    def timing(self, purpose: Purpose) -> Iterator[None]:
        """Count the time in the block as spent on one purpose: evaluation and images, saving, waiting for data."""
        began = time.monotonic()
        yield
        self.spent[purpose] += time.monotonic() - began

    @property
    def seconds(self) -> float:
        """All seconds so far."""
        return time.monotonic() - self._began

    @property
    def training_seconds(self) -> float:
        """Seconds spent on training steps, waiting for their data included."""
        return max(1e-9, self.seconds - self.spent["evaluation"] - self.spent["saving"])

    @property
    def waited(self) -> float:
        """Share of the training steps' time that was spent waiting for data."""
        return self.spent["waiting"] / self.training_seconds

    def summary(self) -> dict[str, Any]:
        """All seconds and those spent on each purpose, under the names that a report has."""
        seconds = {"seconds": self.seconds, "training_seconds": self.training_seconds}
        seconds |= {f"{purpose}_seconds": spent for purpose, spent in self.spent.items()}
        return {name: round(value, 1) for name, value in seconds.items()}
