"""What plots are drawn with: each family's colour, lines with their names at the ends, and plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.compare.measurement.comparison import Row
from pipeline.compare.plan.families import FAMILIES
from pipeline.compare.report.power_law import growth_exponent

COLOURS = ("#8d5a97", "#d1495b", "#3a7d44", "#6b4226", "#2a9d8f", "#c77d0a", "#1b6ca8", "#555b6e")
MARKERS = "osD^vPX*"
BLUE, RED, GREY = "#1b6ca8", "#d1495b", "#6b7280"
LABEL_GAP = 0.062
"""The least distance between labels at the ends of lines, as a share of the panel's height."""

Figure = str
"""The name of a figure in a cell's result."""

End = tuple[float, float, str, str]
"""x and y of a line's last point, its label and its colour."""


def growth_panel(
    axes: Any,
    rows: Sequence[Row],
    name: Figure,
    *,
    hollow: Figure | None = None,
    dashed: bool = False,
    logarithmic: bool = True,
    exponents: bool = True,
    scale: float = 1.0,
) -> list[End]:
    """Draw a figure against resolution, one line for each family.

    Args:
        axes: To draw in.
        rows: Finished.
        name: Of the figure.
        hollow: The name of a figure that says whether a point is extrapolated; such a point is hollow.
        dashed: Whether lines are dashed.
        logarithmic: Whether the figure has a logarithmic axis; resolutions always have.
        exponents: Whether labels show growth exponents.
        scale: What the figure is multiplied by.

    Returns:
        The ends of the lines, to be labelled once the axes have their limits.
    """
    by_family = by_family_of([row for row in rows if row.figures.get(name) is not None])
    ends: list[End] = []
    for family, own in by_family.items():
        x = [row.cell.resolution for row in own]
        y = [row.figures[name] * scale for row in own]
        style = style_of(family)
        axes.plot(x, y, linestyle="--" if dashed else "-", linewidth=1.6, **style)
        for a, b, row in zip(x, y, own, strict=True):
            if hollow and row.figures.get(hollow):
                axes.plot([a], [b], marker=style["marker"], color=style["color"], markerfacecolor="white")
        exponent = growth_exponent(x, y) if exponents else None
        text = FAMILIES[family].title + (f"  $r^{{{exponent:.2f}}}$" if exponent is not None else "")
        ends.append((x[-1], y[-1], text, style["color"]))
    axes.set_xscale("log", base=2)
    if logarithmic:
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
    resolutions = sorted({row.cell.resolution for row in rows})
    axes.set_xticks(resolutions, [str(side) for side in resolutions])
    axes.set_xlim(min(resolutions) / 1.15, max(resolutions) * 1.15)
    axes.set_xlabel("resolution, pixels a side")
    tidy(axes)
    return ends


def label_ends(axes: Any, ends: Sequence[End]) -> None:
    """Write the name of each line to the right of the panel, at the height of its last point; no two overlap."""
    labels: list[tuple[float, str, str]] = []
    to_panel = axes.transAxes.inverted()
    for x, y, text, colour in ends:
        labels.append((float(to_panel.transform(axes.transData.transform((x, y)))[1]), text, colour))
    labels.sort(key=lambda label: label[0])
    heights = [label[0] for label in labels]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + LABEL_GAP)
    highest = 1.0
    for index in reversed(range(len(heights))):  # labels above the top move down, and push others down
        heights[index] = min(heights[index], highest)
        highest = heights[index] - LABEL_GAP
    for height, (_, text, colour) in zip(heights, labels, strict=True):
        axes.annotate(text, (1.02, height), xycoords="axes fraction", va="center", fontsize=9, color=colour)


def by_family_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by their family, in order."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row.cell.family, []).append(row)
    return families


def style_of(family: str) -> dict[str, Any]:
    """The colour and marker of a family, the same in every plot of every comparison."""
    index = list(FAMILIES).index(family)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 5,
    }


def plain_ticks(axis: Any, shown: Callable[[float], str] | None = None) -> None:
    """Show plain numbers instead of powers of ten on a logarithmic axis, and more of them where its span is small."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if high < 5 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)))
    elif high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    text = shown or (lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.4g}")
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())


def tidy(axes: Any) -> None:
    """A light grid, and no frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
