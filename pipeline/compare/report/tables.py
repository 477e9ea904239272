"""The figures of a comparison as tables: each column is one quantity in one unit."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.compare.measurement.comparison import Comparison, Row
from pipeline.compare.plan.families import FAMILIES

ABSENT = "–"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: Quantity and unit.
        shown: The text of a cell, from its row's figures.
    """

    heading: str
    shown: Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Table:
    """Columns under a title.

    Attributes:
        title: What they are about.
        note: How to read them.
        columns: Those after the ones that name the row.
    """

    title: str
    note: str
    columns: tuple[Column, ...]


def rounded(value: Any, digits: int = 3) -> str:
    """A number with so many significant digits, thousands separated; a dash for none.

    Example:
        >>> rounded(0.0012345), rounded(1234567), rounded(31.4159), rounded(None)
        ('0.00123', '1,234,567', '31.4', '–')
    """
    if value is None:
        return ABSENT
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def short(value: Any) -> str:
    """A large number with a metric prefix.

    Example:
        >>> short(1_230_000), short(4.56e12), short(None)
        ('1.23 M', '4.56 T', '–')
    """
    if value is None:
        return ABSENT
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.3g} {letter}"
    return f"{value:.3g}"


def _number(name: str, heading: str, digits: int = 3) -> Column:
    return Column(heading, lambda figures: rounded(figures.get(name), digits))


def _large(name: str, heading: str) -> Column:
    return Column(heading, lambda figures: short(figures.get(name)))


def _megabytes(name: str, heading: str) -> Column:
    return Column(heading, lambda figures: ABSENT if name not in figures else f"{figures[name] / 1e6:,.0f}")


def _both(model: str, tokenizer: str, heading: str, shown: Callable[[Any], str]) -> Column:
    """The model's figure, after the tokenizer's where that was trained too."""

    def both(figures: dict[str, Any]) -> str:
        first = figures.get(tokenizer)
        return shown(figures.get(model)) if first is None else f"{shown(first)} + {shown(figures.get(model))}"

    return Column(heading, both)


def _sample_seconds(figures: dict[str, Any]) -> str:
    text = rounded(figures.get("sample_seconds_an_image"))
    return f"{text} (extrapolated)" if figures.get("sample_seconds_extrapolated") else text


def _with_floor(name: str) -> Callable[[dict[str, Any]], str]:
    def shown(figures: dict[str, Any]) -> str:
        if figures.get(name) is None:
            return ABSENT
        return f"{rounded(figures[name])} (real {rounded(figures[f'{name}_floor'])})"

    return shown


TRAINING = Table(
    "Training",
    "All models were trained with the same budget. A two-stage model gives half of it to its VQ-VAE and half to its "
    "prior, whose figures follow the plus sign. FLOPs are of all steps; a multiply-add counts as two. Memory is the "
    "peak of the process, libraries and data included.",
    (
        _both("parameters", "tokenizer_parameters", "parameters", short),
        _both("training_steps", "tokenizer_training_steps", "steps", rounded),
        _both("training_images_per_second", "tokenizer_training_images_per_second", "images/s", rounded),
        _number("training_seconds", "training s"),
        _large("training_flops", "training FLOPs"),
        _megabytes("training_peak_bytes", "peak MB"),
    ),
)

COSTS = Table(
    "Cost of an image",
    "Scoring computes one exact log-probability and includes encoding. Cached sampling computes every activation "
    "once. Naive sampling takes a full pass a symbol, and its time is extrapolated from a few symbols that were timed. "
    "A cached time marked as extrapolated is in proportion to the part that was drawn within the limit; for a "
    "transformer, whose later symbols cost more, it is a lower bound. The batch sizes are that of sampling, and that "
    "of scoring and naive sampling.",
    (
        _number("symbols_an_image", "symbols"),
        _number("naive_evaluations_an_image", "naive evaluations"),
        _number("parallel_evaluations_an_image", "fixed-point evaluations"),
        _large("flops_an_image", "FLOPs to score"),
        _number("score_seconds_an_image", "score s"),
        Column("sample s, cached", _sample_seconds),
        _number("naive_seconds_an_image_extrapolated", "sample s, naive (extrapolated)"),
        Column(
            "batches",
            lambda figures: f"{figures.get('sample_batch', ABSENT)}, {figures.get('score_batch', ABSENT)}",
        ),
        _megabytes("sample_peak_bytes", "sampling's peak MB"),
    ),
)

QUALITY = Table(
    "Likelihood and quality",
    "Likelihoods compare within a column, not across columns. Bits/dim is exact and of the image. The ELBO bounds it "
    "from above for a VQ-VAE whose decoder is a likelihood. Nats a code and nats a palette colour are of symbols, not "
    "of the image. PSNR measures what the tokenizer keeps of test images. The Fréchet distance is followed by that of "
    "as many held-out real images, which is what a perfect model would reach. It falls as the number of images grows, "
    "so only distances of equally many images compare.",
    (
        _number("bits_per_dim", "bits/dim", 4),
        _number("elbo_bits_per_dim", "ELBO bits/dim", 4),
        _number("nats_per_code", "nats a code", 4),
        _number("nats_per_palette_colour", "nats a palette colour", 4),
        _number("psnr_db", "reconstruction PSNR dB"),
        Column("Fréchet distance", _with_floor("frechet")),
        _number("frechet_images", "of images"),
    ),
)

INCEPTION = Column("Fréchet, Inception v3", _with_floor("inception_frechet"))


def _coverage(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda figures: rounded((figures.get("coverage") or {}).get(name))


CLASSES = Table(
    "Classes",
    "Mode coverage: unconditional samples are classified by a network that was trained on the training images alone. "
    "Total variation (0 to 1) is the distance between their classes and the data's, and next to it is that of held-out "
    "real images. p is that of a chi-square test. The linear probe is of ImageGPT's best layer, and of raw pixels.",
    (
        Column("classes missing", _coverage("missing")),
        Column("total variation", _coverage("total_variation")),
        Column("of real images", _coverage("floor")),
        Column("p", _coverage("p_value")),
        Column("classifier's accuracy", _coverage("classifier_accuracy")),
        _number("probe_best_accuracy", "linear probe"),
        _number("probe_pixels_accuracy", "of raw pixels"),
    ),
)


def tables_of(comparison: Comparison) -> list[Table]:
    """The tables that have figures to show."""
    quality = QUALITY
    if comparison.settings.inception is not None:
        quality = Table(QUALITY.title, QUALITY.note, (*QUALITY.columns, INCEPTION))
    tables = [quality, COSTS, TRAINING]
    if any("coverage" in row.figures or "probe" in row.figures for row in comparison.rows):
        tables.append(CLASSES)
    return tables


def filled_columns(table: Table, rows: Sequence[Row]) -> list[Column]:
    """The columns in which some finished row has a figure; all of them while no row is finished."""
    finished = [row for row in rows if row.done]
    kept = [
        column
        for column in table.columns
        if not finished or any(column.shown(row.figures) != ABSENT for row in finished)
    ]
    return kept or list(table.columns)


def titled(row: Row, *, kind: str) -> str:
    """The name of a row: the family, with its size where sizes are compared."""
    title = FAMILIES[row.cell.family].title
    return f"{title}, {row.cell.size.width} wide, {row.cell.size.depth} deep" if kind == "size" else title


def as_csv(comparison: Comparison) -> str:
    """Every figure of every cell, a row for each cell. Lists and nested figures are in the JSON alone."""
    rows = [
        {
            "family": row.cell.family,
            "resolution": row.cell.resolution,
            "width": row.cell.size.width,
            "depth": row.cell.size.depth,
            **{name: value for name, value in row.figures.items() if not isinstance(value, list | dict)},
            **{
                f"coverage_{name}": value
                for name, value in (row.figures.get("coverage") or {}).items()
                if not isinstance(value, list)
            },
        }
        for row in comparison.rows
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
