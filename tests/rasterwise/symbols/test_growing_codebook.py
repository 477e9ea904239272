"""Codebooks that grow along the raster order."""

from __future__ import annotations

import pytest

from rasterwise.symbols.growing_codebook import allowed_codes


@pytest.mark.parametrize(("sites", "size", "smallest"), [(256, 16_384, 2), (16, 64, 1), (7, 5, 5), (1, 9, 2)])
def test_from_the_smallest_to_all(sites: int, size: int, smallest: int) -> None:
    """The first and the last are as asked for, none is less than the one before it, and factors are equal."""
    allowed = allowed_codes(sites, size, smallest)
    assert allowed.shape == (sites,)
    assert int(allowed[-1]) == size
    assert (allowed.diff() >= 0).all()
    if sites > 1:
        assert int(allowed[0]) == smallest
        steps = allowed.double().log().diff()
        large = allowed[:-1] > 100  # where rounding to whole codes counts for little
        assert steps[large].numel() == 0 or (steps[large] - steps[large].mean()).abs().max() < 0.01
