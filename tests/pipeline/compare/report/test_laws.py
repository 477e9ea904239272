"""What the cells show together, as a program reads it."""

from __future__ import annotations

import pytest

from pipeline.compare.report.laws import growth_of, laws_as_json
from tests.pipeline.compare.conftest import Planted


def test_growth(planted: Planted) -> None:
    """Planted: sampling grows with the pixels, naive sampling with their square, and codes do not grow."""
    found = {growth.family: growth for growth in growth_of(planted("resolution").finished)}
    assert found["gated-pixelcnn"].exponents["sample_seconds_an_image"] == pytest.approx(2)
    assert found["gated-pixelcnn"].exponents["naive_seconds_an_image_extrapolated"] == pytest.approx(4)
    assert found["vqvae-prior"].exponents["naive_evaluations_an_image"] == pytest.approx(0)
    assert found["vqvae-prior"].resolutions == (16, 32)


def test_scaling(planted: Planted) -> None:
    """The planted exponent of loss over parameters; and nothing of the kind in a comparison of families."""
    laws = laws_as_json(planted("size"))
    assert laws["loss"] == "bits_per_dim"
    assert 0.03 < laws["power_laws"]["parameters"]["exponent"] < 0.06
    assert laws_as_json(planted("family")) == {}
