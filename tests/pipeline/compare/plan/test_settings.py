"""Cells, sizes and settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compare.plan.settings import Cell, Settings, Size
from rasterwise.errors import InputError


def test_a_cell_is_found_again_by_its_folder() -> None:
    cell = Cell("gated-pixelcnn", 32, Size(48, 5))
    assert cell.name == "gated-pixelcnn-32-48x5"
    assert Cell.named(cell.name) == cell


@pytest.mark.parametrize("text", ["", "64", "0x4", "64x", "64x0", "axb", "64x4x2"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="expected WIDTHxDEPTH"):
        Size.parse(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"budget": "soon"}, "budget is 'soon'"),
        ({"sample_limit": "5steps"}, "sample_limit is '5steps', expected a time"),
        ({"samples": 0}, "samples is 0, expected 1 or more"),
        ({"naive_sites": 0}, "naive_sites is 0"),
        ({"memory_gib": -1.0}, "memory_gib is -1.0, expected 0 or more"),
        ({"inception": Path("nowhere.safetensors")}, "inception weights nowhere.safetensors do not exist"),
    ],
)
def test_settings_that_cannot_be_used(change: dict[str, object], said: str) -> None:
    Settings().check()
    with pytest.raises(InputError, match=said):
        replace(Settings(), **change).check()  # type: ignore[arg-type]
