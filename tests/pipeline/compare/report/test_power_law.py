"""Exponents and power laws: what is planted is found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.compare.report.power_law import PowerLaw, growth_exponent


def test_growth() -> None:
    sides = [16, 32, 64, 128]
    assert growth_exponent(sides, [3 * side**4 for side in sides]) == pytest.approx(4)
    assert growth_exponent([16], [1.0]) is None
    assert growth_exponent([16, 16], [1.0, 2.0]) is None


def test_a_planted_law_is_recovered() -> None:
    """Without noise to the last digits, and with no width of the band."""
    x = [1e4, 3e4, 1e5, 1e6]
    law = PowerLaw.fit(x, [7 * value**-0.076 for value in x])
    assert law is not None
    assert law.exponent == pytest.approx(0.076)
    assert law.scale == pytest.approx(7)
    assert law.exponent_half_width < 1e-9
    assert law(np.array([1e5]))[0] == pytest.approx(7 * 1e5**-0.076)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """95% of 400 noisy fits hold the planted exponent, within the binomial's three standard deviations."""
    generator = np.random.default_rng(0)
    x = np.geomspace(1e3, 1e6, 6)
    held = 0
    for _ in range(400):
        law = PowerLaw.fit(x, 5 * x**-0.1 * np.exp(generator.normal(0, 0.05, 6)))
        assert law is not None
        held += abs(law.exponent - 0.1) <= law.exponent_half_width
    assert abs(held / 400 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 400)


def test_two_points_have_a_line_and_no_band() -> None:
    law = PowerLaw.fit([1, 10], [2, 1])
    assert law is not None
    assert law.band(np.array([2.0])) is None
    assert PowerLaw.fit([1, 1], [2, 1]) is None
    assert PowerLaw.fit([1, 2], [2, -1]) is None


def test_the_band_is_narrowest_amid_the_points() -> None:
    law = PowerLaw.fit([1, 10, 100], [4, 2.2, 1])
    assert law is not None
    band = law.band(np.array([1.0, 10.0, 100.0]))
    assert band is not None
    ratios = band[1] / band[0]
    assert ratios[1] < ratios[0]
    assert np.all(band[0] < band[1])
