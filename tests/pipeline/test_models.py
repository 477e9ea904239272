"""The tables of models, put together."""

from __future__ import annotations

import pytest

from pipeline.models import model_classes
from rasterwise.decoding.decoder import NaiveDecoder
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.grid import Grid


@pytest.mark.parametrize("kind", model_classes())
def test_a_shipped_model_computes_each_activation_once(kind: str) -> None:
    """The naive decoder is for new models and for tests: what is shipped has a cached one."""
    model_class = model_classes()[kind]
    assert model_class.kind == kind
    assert model_class.decoder is not AutoregressiveModel.decoder
    model = model_class(model_class.config_class(grid=Grid(1, 5, 2, 4)))
    assert not isinstance(model.decoder(1), NaiveDecoder)
