"""Plots of a comparison: cost and quality, with a labelled line or point for each family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.compare.measurement.comparison import Comparison, Row
from pipeline.compare.plan.families import FAMILIES
from pipeline.compare.report.laws import SCALING_COSTS, loss_of
from pipeline.compare.report.panels import (
    BLUE,
    GREY,
    RED,
    by_family_of,
    growth_panel,
    label_ends,
    plain_ticks,
    style_of,
    tidy,
)
from pipeline.compare.report.power_law import PowerLaw
from pipeline.compare.report.tables import short
from rasterwise.measure.figures import new_figure, save_figure

DPI = 144


def plot_all(comparison: Comparison, folder: Path) -> list[tuple[str, Path]]:
    """Draw the plots that the finished cells allow.

    Returns:
        Captions and files, in order.
    """
    if not comparison.finished:
        return []
    drawn: list[tuple[str, Path]] = []
    for name, caption, draw in PLOTS[comparison.kind]:
        figure = draw(comparison.finished)
        if figure is not None:
            save_figure(figure, folder / f"{name}.png", dpi=DPI)
            drawn.append((caption, folder / f"{name}.png"))
    return drawn


# ---------------------------------------------------------------------------- resolution


def sampling_plot(rows: Sequence[Row]) -> Any:
    """Seconds to sample an image against resolution, cached and naive."""
    figure = new_figure(10.4, 4.6)
    left, right = figure.subplots(1, 2, sharey=True)
    cached = growth_panel(left, rows, "sample_seconds_an_image", hollow="sample_seconds_extrapolated")
    naive = growth_panel(right, rows, "naive_seconds_an_image_extrapolated", dashed=True)
    label_ends(left, cached)  # after both are drawn: the panels share an axis
    label_ends(right, naive)
    left.set_title("cached sampling")
    right.set_title("naive sampling (extrapolated)")
    left.set_ylabel("seconds to sample an image")
    return figure


def evaluations_plot(rows: Sequence[Row]) -> Any:
    """Network evaluations of a naive sampler against resolution."""
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    label_ends(axes, growth_panel(axes, rows, "naive_evaluations_an_image"))
    axes.set_ylabel("network evaluations an image, naive")
    return figure


def costs_plot(rows: Sequence[Row]) -> Any:
    """Scoring, FLOPs, training speed and memory against resolution."""
    figure = new_figure(10.4, 8.0)
    panels: list[tuple[str, str, float]] = [
        ("score_seconds_an_image", "seconds to score an image", 1.0),
        ("flops_an_image", "GFLOPs to score an image", 1e-9),
        ("training_images_per_second", "training images a second", 1.0),
        ("training_peak_bytes", "peak memory in training, MB", 1e-6),
    ]
    for axes, (name, label, scale) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        grows = not name.endswith("bytes")  # libraries take most of the memory at first
        label_ends(axes, growth_panel(axes, rows, name, scale=scale, exponents=grows))
        axes.set_ylabel(label)
    return figure


def likelihood_plot(rows: Sequence[Row]) -> Any:
    """Likelihood against resolution, a panel for each unit."""
    units = [
        ("bits_per_dim", "bits/dim, exact"),
        ("elbo_bits_per_dim", "bits/dim, ELBO"),
        ("nats_per_code", "nats a code"),
        ("nats_per_palette_colour", "nats a palette colour"),
    ]
    present = [unit for unit in units if any(row.figures.get(unit[0]) is not None for row in rows)]
    figure = new_figure(5.2 * min(2, len(present)), 4.0 * -(-len(present) // 2))
    panels = figure.subplots(-(-len(present) // 2), min(2, len(present)), squeeze=False).flat
    for axes, (name, label) in zip(panels, present, strict=False):
        label_ends(axes, growth_panel(axes, rows, name, logarithmic=False, exponents=False))
        axes.set_ylabel(label)
    for axes in figure.axes[len(present) :]:
        axes.remove()
    return figure


def fidelity_plot(rows: Sequence[Row]) -> Any:
    """Reconstruction PSNR of lossy tokenizers against resolution."""
    if not any(row.figures.get("psnr_db") is not None for row in rows):
        return None
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    label_ends(axes, growth_panel(axes, rows, "psnr_db", logarithmic=False, exponents=False))
    axes.set_ylabel("reconstruction PSNR, dB")
    return figure


def quality_cost_plot(rows: Sequence[Row]) -> Any:
    """Fréchet distance, divided by that of real images, against the seconds that an image takes."""
    points = [row for row in rows if row.figures.get("frechet") is not None]
    if not points:
        return None
    figure = new_figure(7.6, 5.0)
    axes = figure.subplots()
    by_family = by_family_of(points)
    several = len({row.cell.resolution for row in points}) > 1
    most = max(row.figures["frechet_images"] for row in points)
    for family, own in by_family.items():
        x = [row.figures["sample_seconds_an_image"] for row in own]
        y = [row.figures["frechet"] / row.figures["frechet_floor"] for row in own]
        style = style_of(family)
        axes.plot(x, y, linewidth=1.2, alpha=0.9, label=FAMILIES[family].title, **style)
        for row, a, b in zip(own, x, y, strict=True):
            if row.figures["frechet_images"] < most:
                axes.plot([a], [b], marker=style["marker"], color=style["color"], markerfacecolor="white")
        if several:
            for row, a, b in zip(own, x, y, strict=True):
                axes.annotate(
                    str(row.cell.resolution), (a, b), xytext=(5, 4), textcoords="offset points", fontsize=8,
                    color=style["color"],
                )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.axhline(1, color=GREY, linestyle=":", linewidth=1)
    axes.annotate("held-out real images", (0.99, 1), xycoords=("axes fraction", "data"), xytext=(0, 3),
                  textcoords="offset points", ha="right", fontsize=8, color=GREY)  # fmt: skip
    axes.set_xlabel("seconds to sample an image, cached" + ("; numbers are resolutions" if several else ""))
    axes.set_ylabel("Fréchet distance ÷ that of real images")
    axes.legend(frameon=False, fontsize=9)
    tidy(axes)
    return figure


# ---------------------------------------------------------------------------- size


def scaling_plot(rows: Sequence[Row]) -> Any:
    """Test loss against parameters and against training FLOPs, with a power law and its band."""
    name, label = loss_of(rows)
    figure = new_figure(10.4, 4.4)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (cost, cost_label) in zip(panels, SCALING_COSTS.items(), strict=True):
        x = [row.figures[cost] for row in rows]
        y = [row.figures[name] for row in rows]
        law = PowerLaw.fit(x, y)
        if law is not None:
            line = np.geomspace(min(x), max(x), 100)
            fitted = f"loss ∝ {cost_label}$^{{{-law.exponent:.3f}}}$"
            band = law.band(line)
            if band is not None:
                fitted += f", exponent ± {law.exponent_half_width:.3f}"
                axes.fill_between(line, *band, color=BLUE, alpha=0.14, linewidth=0, label="95% band")
            axes.plot(line, law(line), color=BLUE, linewidth=1.4, label=fitted)
        axes.plot(x, y, "o", color=RED, markersize=6)
        for row, a, b in zip(rows, x, y, strict=True):
            axes.annotate(str(row.cell.size), (a, b), xytext=(4, 5), textcoords="offset points", fontsize=8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_ticks(axes.xaxis, short)
        plain_ticks(axes.yaxis)
        axes.set_xlabel(cost_label)
        if law is not None:
            axes.legend(frameon=False, fontsize=9)
        tidy(axes)
    panels[0].set_ylabel(f"test {label}")
    return figure


# ---------------------------------------------------------------------------- family


def speed_likelihood_plot(rows: Sequence[Row]) -> Any:
    """Bits/dim against training speed, of models with an exact likelihood of the image."""
    points = [row for row in rows if row.figures.get("bits_per_dim") is not None]
    if not points:
        return None
    figure = new_figure(7.0, 4.6)
    axes = figure.subplots()
    for row in points:
        style = style_of(row.cell.family)
        x, y = row.figures["training_images_per_second"], row.figures["bits_per_dim"]
        axes.plot([x], [y], linestyle="none", **(style | {"markersize": 8}))
        axes.annotate(
            FAMILIES[row.cell.family].title, (x, y), xytext=(7, 5), textcoords="offset points", fontsize=9
        )
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.15)
    plain_ticks(axes.xaxis)
    axes.set_xlabel("training images a second")
    axes.set_ylabel("test bits/dim, exact")
    tidy(axes)
    return figure


def coverage_plot(rows: Sequence[Row]) -> Any:
    """Shares of the classes among samples and in the data."""
    classified = [row for row in rows if row.figures.get("coverage")]
    if not classified:
        return None
    classes = classified[0].figures["classes"]
    if len(classes) > 40:
        return None
    columns = min(2, len(classified))
    lines = -(-len(classified) // columns)
    figure = new_figure(5.2 * columns, 2.4 * lines + 0.4)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, row in zip(panels.flat, classified, strict=False):
        found = row.figures["coverage"]
        drawn = np.array(found["drawn"])
        colour = style_of(row.cell.family)["color"]
        axes.bar(range(len(classes)), drawn / drawn.sum(), color=colour, alpha=0.85, width=0.7)
        for index, share in enumerate(found["data_shares"]):
            axes.plot([index - 0.45, index + 0.45], [share, share], color="#111827", linewidth=1.4)
        axes.set_title(
            f"{FAMILIES[row.cell.family].title}: total variation {found['total_variation']:.2f}",
            fontsize=10,
        )
        axes.set_xticks(
            range(len(classes)), classes, rotation=90 if max(map(len, classes)) > 2 else 0, fontsize=8
        )
        tidy(axes)
    for axes in list(panels.flat)[len(classified) :]:
        axes.remove()
    figure.supylabel("share of samples (bars) and of the data (lines)", fontsize=10)
    return figure


def probe_plot(rows: Sequence[Row]) -> Any:
    """Accuracy of a linear classifier by layer, and of raw pixels."""
    probed = [row for row in rows if row.figures.get("probe")]
    if not probed:
        return None
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    for row in probed:
        report = row.figures["probe"]
        accuracies = [layer["accuracy"] for layer in report["layers"]]
        errors = [layer["standard_error"] for layer in report["layers"]]
        axes.errorbar(range(len(accuracies)), accuracies, errors, color=BLUE, marker="o", capsize=3)
        axes.set_xticks(range(len(accuracies)))
        pixels = report["pixels"]["accuracy"]
        axes.axhline(pixels, color=GREY, linestyle="--", linewidth=1.2)
        axes.annotate("raw pixels", (0.99, pixels), xycoords=("axes fraction", "data"), xytext=(0, 3),
                      textcoords="offset points", ha="right", fontsize=9, color=GREY)  # fmt: skip
    axes.set_xlabel("layer of ImageGPT (0: embeddings)")
    axes.set_ylabel("accuracy of a linear probe")
    tidy(axes)
    return figure


Draw = Callable[[Sequence[Row]], Any]

QUALITY_COST = (
    "Quality against the cost of a sample. Hollow points are of fewer images than the others. The distance of real "
    "images is larger then, which makes the ratio look better."
)

PLOTS: dict[str, list[tuple[str, str, Draw]]] = {
    "resolution": [
        (
            "sampling-seconds",
            "Seconds to sample an image. The power of r, the pixels a side, is the least-squares slope of the points. "
            "Hollow points are extrapolated.",
            sampling_plot,
        ),
        ("evaluations", "Network evaluations of a naive sampler: one a symbol.", evaluations_plot),
        ("quality-cost", QUALITY_COST, quality_cost_plot),
        ("likelihood", "Test likelihood, a panel for each unit.", likelihood_plot),
        (
            "fidelity",
            "What the tokenizer keeps of test images. Models of subpixels lose nothing.",
            fidelity_plot,
        ),
        ("costs", "Scoring, training and memory.", costs_plot),
    ],
    "size": [("scaling", "Test loss against size and against training cost, with power laws.", scaling_plot)],
    "family": [
        (
            "speed-likelihood",
            "Likelihood against training speed. Lower is better, and so is further right.",
            speed_likelihood_plot,
        ),
        ("quality-cost", QUALITY_COST, quality_cost_plot),
        ("coverage", "Mode coverage: the classes of unconditional samples, by a classifier.", coverage_plot),
        ("probe", "The linear probe of ImageGPT.", probe_plot),
    ],
}
"""The plots of each kind of comparison: file name, caption and function."""
