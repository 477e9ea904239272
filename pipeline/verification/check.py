"""What the check of one property found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["passes", "fails", "noted", "skipped"]
"""Of a check; "noted" is a figure without a right value, "skipped" a property that this model cannot be asked for."""


@dataclass(frozen=True)
class Check:
    """One property of a model or a tokenizer.

    Attributes:
        name: Of the property.
        verdict: Whether it holds.
        measured: The figure that decides; None where there is none.
        tolerance: The figure's limit; None where there is none.
        about: What was measured, on how much, and where it was worst.
        cause: What usually causes a failure; empty unless it fails.

    Example:
        >>> from pipeline.verification.check import at_most
        >>> check = at_most("cached = naive", 0.5, 1e-10, "largest difference", "a stale cache")
        >>> check.verdict, check.cause
        ('fails', 'a stale cache')
    """

    name: str
    verdict: Verdict
    measured: float | None = None
    tolerance: float | None = None
    about: str = ""
    cause: str = ""


def at_most(name: str, measured: float, tolerance: float, about: str, cause: str) -> Check:
    """A property that holds while a figure, such as a difference, does not exceed its tolerance; NaN exceeds it."""
    holds = measured <= tolerance
    return Check(name, "passes" if holds else "fails", measured, tolerance, about, "" if holds else cause)


def at_least(name: str, measured: float, tolerance: float, about: str, cause: str) -> Check:
    """A property that holds while a figure, such as a p-value, does not fall below its tolerance; NaN does."""
    holds = measured >= tolerance
    return Check(name, "passes" if holds else "fails", measured, tolerance, about, "" if holds else cause)


def noted(name: str, measured: float, about: str) -> Check:
    """A figure to know, without a right value."""
    return Check(name, "noted", measured, about=about)


def skipped(name: str, why: str) -> Check:
    """A property that was not checked."""
    return Check(name, "skipped", about=why)


def attempted(name: str, check: Callable[[], Check]) -> Check:
    """The check, or a failure that says what was raised: the checks after it go on."""
    try:
        return check()
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        return Check(
            name, "fails", about=f"{type(error).__name__}: {said}", cause="the check could not be done"
        )


def table(checks: tuple[Check, ...]) -> str:
    """Checks as aligned lines (property, verdict, measured, tolerance, what was measured); causes follow failures."""
    rows = [("property", "verdict", "measured", "tolerance", "")]
    rows += [
        (one.name, one.verdict, _shown(one.measured), _shown(one.tolerance), one.about) for one in checks
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row, check in zip(rows, (None, *checks), strict=True):
        name, verdict, measured, tolerance = (
            cell.rjust(width) if column > 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        lines.append(f"{name}  {verdict}  {measured}  {tolerance}  {row[4]}".rstrip())
        if check is not None and check.cause:
            lines.append(f"    usual cause: {check.cause}")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{int(value):,}" if math.isfinite(value) and value == int(value) else f"{value:.2g}"
