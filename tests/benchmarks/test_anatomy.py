"""The benchmark that takes a site's time apart. No test of a time."""

from __future__ import annotations

import pytest

from benchmarks.anatomy import AnatomyBenchmark, kind_of, measure_anatomy, stretch, table
from benchmarks.models import MODELS, SampledName
from rasterwise.errors import InputError


@pytest.mark.parametrize("name", ["gated-pixelcnn", "image-gpt"])
def test_a_cell_says_what_was_measured(name: SampledName) -> None:
    """The shares are a whole; attention's batched products are seen where there is attention."""
    cell = measure_anatomy(name, AnatomyBenchmark(batch_size=2, rows=1, size="tiny"))
    assert sum(cell["share_of_time"].values()) == pytest.approx(1)
    assert cell["share_of_time"]["matrix products"] > 0
    assert ("batched products" in cell["share_of_time"]) == (name == "image-gpt")
    assert cell["operations_a_symbol"] > 5
    label = MODELS[name].label("tiny")
    assert label in table([{"label": label, **cell}])


def test_a_stretch_draws_so_many_symbols() -> None:
    """The walk goes on from where it is."""
    import torch

    model = MODELS["pixelcnn"].build("tiny", torch.device("cpu")).eval()
    decoder = model.decoder(2)  # type: ignore[operator]
    stretch(decoder, 3)
    stretch(decoder, 2)
    assert decoder.index == 5


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
