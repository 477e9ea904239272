"""The laws that a comparison's cells show together: growth with resolution, and loss over size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pipeline.compare.measurement.comparison import Comparison, Row
from pipeline.compare.report.power_law import PowerLaw, growth_exponent

GROWING = {
    "naive_evaluations_an_image": "naive evaluations",
    "sample_seconds_an_image": "sample s, cached",
    "naive_seconds_an_image_extrapolated": "sample s, naive",
    "score_seconds_an_image": "score s",
    "flops_an_image": "FLOPs to score",
}
"""Figures whose growth with the pixels a side is told, and their headings."""

SCALING_COSTS = {"parameters": "parameters", "training_flops": "training FLOPs"}
"""What loss is fitted over."""


@dataclasses.dataclass(frozen=True)
class Growth:
    """How a family's costs grow.

    Attributes:
        family: Which.
        resolutions: That are done.
        exponents: Of each figure in ``GROWING``: the least-squares slope over the pixels a side.
    """

    family: str
    resolutions: tuple[int, ...]
    exponents: dict[str, float]


def growth_of(rows: Sequence[Row]) -> list[Growth]:
    """Of every family that is done at two resolutions or more."""
    found = []
    for family in dict.fromkeys(row.cell.family for row in rows):
        own = [row for row in rows if row.cell.family == family]
        sides = [row.cell.resolution for row in own]
        exponents = {name: growth_exponent(sides, [row.figures[name] for row in own]) for name in GROWING}
        whole = {name: exponent for name, exponent in exponents.items() if exponent is not None}
        if len(whole) == len(GROWING):
            found.append(Growth(family, tuple(sides), whole))
    return found


def loss_of(rows: Sequence[Row]) -> tuple[str, str]:
    """The likelihood that one family's sizes are compared by, and its unit."""
    for name, label in (("bits_per_dim", "bits/dim"), ("nats_per_palette_colour", "nats a palette colour")):
        if rows[0].figures.get(name) is not None:
            return name, label
    return "nats_per_code", "nats a code"


def laws_as_json(comparison: Comparison) -> dict[str, Any]:
    """What follows from the cells together, by its kind of comparison."""
    rows = comparison.finished
    if comparison.kind == "resolution":
        return {"growth": [dataclasses.asdict(growth) for growth in growth_of(rows)]}
    if comparison.kind != "size" or not rows:
        return {}
    name, _ = loss_of(rows)
    losses = [row.figures[name] for row in rows]
    laws = {cost: PowerLaw.fit([row.figures[cost] for row in rows], losses) for cost in SCALING_COSTS}
    return {
        "loss": name,
        "power_laws": {cost: dataclasses.asdict(law) if law else None for cost, law in laws.items()},
    }
