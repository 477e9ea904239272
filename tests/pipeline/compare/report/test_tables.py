"""Figures as text."""

from __future__ import annotations

import csv
import io

from pipeline.compare.report.tables import (
    ABSENT,
    COSTS,
    QUALITY,
    as_csv,
    filled_columns,
    rounded,
    short,
    tables_of,
)
from tests.pipeline.compare.conftest import Planted


def test_numbers() -> None:
    assert [rounded(value) for value in (0.00123456, 12.3456, 12345.6, 12345, None)] == [
        "0.00123", "12.3", "12,346", "12,345", ABSENT,
    ]  # fmt: skip
    assert [short(value) for value in (950, 48_300, 2.5e15)] == ["950", "48.3 k", "2.5 P"]


def test_columns_without_a_figure_are_left_out(planted: Planted) -> None:
    """No cell counted fixed-point evaluations."""
    headings = [column.heading for column in filled_columns(COSTS, planted("resolution").rows)]
    assert "symbols" in headings
    assert "fixed-point evaluations" not in headings


def test_a_likelihood_is_in_one_column_alone(planted: Planted) -> None:
    """Whatever the model, exactly one of the exact and the symbols' units has a figure."""
    units = [c for c in QUALITY.columns if c.heading in ("bits/dim", "nats a code", "nats a palette colour")]
    for row in planted("family").finished:
        assert sum(column.shown(row.figures) != ABSENT for column in units) == 1


def test_classes_have_a_table_where_samples_were_classified(planted: Planted) -> None:
    assert "Classes" in [table.title for table in tables_of(planted("family"))]
    assert "Classes" not in [table.title for table in tables_of(planted("resolution"))]


def test_csv(planted: Planted) -> None:
    """A row a cell, with every figure that is one number, also where others lack it."""
    comparison = planted("family")
    rows = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    assert [row["family"] for row in rows] == [row.cell.family for row in comparison.rows]
    assert rows[0]["coverage_total_variation"] == "0.12"
    assert rows[-1]["status"] == "not yet"
