"""Straight lines on logarithmic axes: growth exponents, and power laws with a confidence band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

CONFIDENCE = 0.95


def growth_exponent(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The least-squares slope of log y over log x; None for fewer than two different x.

    Example:
        >>> growth_exponent([1, 2, 4], [3, 12, 48])
        2.0
    """
    if len(set(x)) < 2:
        return None
    return round(float(np.polyfit(np.log(x), np.log(y), 1)[0]), 12) + 0.0  # not −0


@dataclass(frozen=True)
class PowerLaw:
    """y = a · x^−b, fitted to points on logarithmic axes by least squares.

    Attributes:
        scale: a.
        exponent: b, positive where y falls.
        exponent_half_width: Of b's 95% confidence interval (Student's t); infinite for two points.
        log_x_mean: The mean of log x over the points.
        log_x_spread: The sum of squared distances from that mean.
        residual: The standard deviation of log y around the line, by degrees of freedom; infinite for two points.
        points: How many were fitted.
    """

    scale: float
    exponent: float
    exponent_half_width: float
    log_x_mean: float
    log_x_spread: float
    residual: float
    points: int

    @classmethod
    def fit(cls, x: Sequence[float], y: Sequence[float]) -> Self | None:
        """Fit to points; None for fewer than two different x, or where a y is not positive."""
        if len(set(x)) < 2 or min(y) <= 0:
            return None
        log_x, log_y = np.log(np.asarray(x, dtype=float)), np.log(np.asarray(y, dtype=float))
        slope, intercept = np.polyfit(log_x, log_y, 1)
        spread = float(((log_x - log_x.mean()) ** 2).sum())
        freedom = len(x) - 2
        rest = float(((log_y - intercept - slope * log_x) ** 2).sum())
        residual = math.sqrt(rest / freedom) if freedom else math.inf
        half_width = _quantile(freedom) * residual / math.sqrt(spread) if freedom else math.inf
        return cls(
            math.exp(intercept), -float(slope), half_width, float(log_x.mean()), spread, residual, len(x)
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The line."""
        return self.scale * x**-self.exponent

    def band(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The 95% confidence band of the line, low and high; None for two points, which have no residual."""
        if self.points < 3:
            return None
        away = (np.log(x) - self.log_x_mean) ** 2 / self.log_x_spread
        half = _quantile(self.points - 2) * self.residual * np.sqrt(1 / self.points + away)
        return self(x) * np.exp(-half), self(x) * np.exp(half)


def _quantile(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, freedom))
