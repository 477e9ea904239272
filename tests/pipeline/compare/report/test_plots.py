"""Plots: one file each, for whatever is done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.compare.report.plots import PLOTS, plot_all
from tests.pipeline.compare.conftest import Planted


@pytest.mark.parametrize("kind", PLOTS)
def test_every_plot_is_drawn(kind: str, planted: Planted, tmp_path: Path) -> None:
    """None is empty, and captions go with files."""
    drawn = plot_all(planted(kind), tmp_path)
    assert [path.stem for _, path in drawn] == [name for name, _, _ in PLOTS[kind]]
    for _, path in drawn:
        assert np.asarray(Image.open(path).convert("L")).std() > 5


@pytest.mark.parametrize("kind", PLOTS)
def test_one_cell_is_enough(kind: str, planted: Planted, tmp_path: Path) -> None:
    """A comparison of which one cell is done has no exponents and no power law, and no error."""
    comparison = planted(kind)
    one = type(comparison)(kind, comparison.settings, comparison.rows[:1], comparison.machine, "")
    assert plot_all(one, tmp_path)
