"""What the cells of a comparison show together: growth of cost with resolution, and loss by size."""

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
"""Figures whose growth with resolution is reported, and their headings."""

SCALING_COSTS = {"parameters": "parameters", "training_flops": "training FLOPs"}
"""What the loss is fitted against."""


@dataclasses.dataclass(frozen=True)
class Growth:
    """How the costs of a family grow with resolution.

    Attributes:
        family: Its name in ``FAMILIES``.
        resolutions: Of its finished cells.
        exponents: By figure in ``GROWING``: the least-squares slope over the pixels a side, on logarithmic axes.
    """

    family: str
    resolutions: tuple[int, ...]
    exponents: dict[str, float]


def growth_of(rows: Sequence[Row]) -> list[Growth]:
    """The growth of every family that has finished cells at two resolutions or more."""
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
    """The figure by which the sizes of one family are compared, and its unit."""
    for name, label in (("bits_per_dim", "bits/dim"), ("nats_per_palette_colour", "nats a palette colour")):
        if rows[0].figures.get(name) is not None:
            return name, label
    return "nats_per_code", "nats a code"


def laws_as_json(comparison: Comparison) -> dict[str, Any]:
    """Growth exponents or power laws, as the kind of comparison asks for."""
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
