"""What plots are drawn with."""

from __future__ import annotations

import itertools

from pipeline.compare.plan.families import FAMILIES
from pipeline.compare.report.panels import LABEL_GAP, label_ends, style_of
from rasterwise.measure.figures import new_figure


def test_families_are_told_apart() -> None:
    styles = [style_of(family) for family in FAMILIES]
    for key in ("color", "marker"):
        assert len({style[key] for style in styles}) == len(FAMILIES)


def test_labels_keep_apart_and_inside() -> None:
    """Of lines that end at one height, at the bottom and at the top too."""
    axes = new_figure(4, 3).subplots()
    axes.set_ylim(0, 1)
    heights = [0.0, 0.01, 0.5, 0.99, 1.0, 1.0]
    label_ends(axes, [(1.0, height, str(number), "#000000") for number, height in enumerate(heights)])
    heights = sorted(text.xy[1] for text in axes.texts)
    assert all(after - before > LABEL_GAP - 1e-9 for before, after in itertools.pairwise(heights))
    assert heights[-1] <= 1
    assert abs(heights[2] - 0.5) < 1e-9
