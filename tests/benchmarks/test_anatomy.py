"""The benchmark of what a symbol's time is made of. No test of a time."""

from __future__ import annotations

import pytest

from benchmarks.anatomy import AnatomyBenchmark, kind_of, measure_anatomy, table
from benchmarks.models import MODELS, SampledName
from rasterwise.errors import InputError


@pytest.mark.parametrize("name", ["pixelcnn-pp-rgb-small", "pixelcnn", "image-gpt"])
def test_a_cell_says_what_was_measured(name: SampledName) -> None:
    """The shares are a whole; batched products are seen in attention and where a wavefront takes all blocks at once."""
    cell = measure_anatomy(name, AnatomyBenchmark(batch_size=2, rows=1, size="tiny"))
    assert sum(cell["share_of_time"].values()) == pytest.approx(1)
    assert cell["share_of_time"]["matrix products"] > 0
    assert ("batched products" in cell["share_of_time"]) == (name != "pixelcnn-pp-rgb-small")
    assert cell["operations_a_symbol"] > 5
    label = MODELS[name].label("tiny")
    assert label in table([{"label": label, **cell}])


def test_kinds() -> None:
    """Products of one matrix, of many, and the rest."""
    assert [kind_of(f"aten::{name}") for name in ("addmm", "bmm", "cumsum")] == [
        "matrix products",
        "batched products",
        "everything else",
    ]


def test_bad_input() -> None:
    """Refused before anything is measured."""
    with pytest.raises(InputError, match="asked for models"):
        AnatomyBenchmark(rows=0)
