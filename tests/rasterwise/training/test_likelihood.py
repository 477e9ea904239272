"""Scoring: a model that overflows is named, not scored."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from rasterwise import Grid, PixelCNN, PixelCNNConfig, PixelCNNPP, PixelCNNPPConfig
from rasterwise.data.indexed import tensor_split
from rasterwise.errors import NonFiniteError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.training.likelihood import evaluate_likelihood

GRID = Grid(1, 4, 4, 4)


@pytest.mark.parametrize(
    "model",
    [
        PixelCNN(PixelCNNConfig(grid=GRID, width=8, blocks=1, output_width=8)),
        PixelCNNPP(PixelCNNPPConfig(grid=GRID, width=8, blocks=1)),
    ],
    ids=lambda model: model.kind,
)
def test_logits_that_are_not_finite_end_scoring(model: AutoregressiveModel) -> None:
    """Weights that are finite themselves, and overflow: the evaluation ends, and so does the model's log_prob."""
    symbols = torch.randint(4, (6, *GRID.shape))
    split, accelerator = tensor_split(symbols, None), Accelerator(cpu=True)
    model.eval()
    assert evaluate_likelihood(model, split, accelerator)["nll_nats"] > 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("direction"):  # whose length does not matter
                parameter.mul_(1e30)
        with pytest.raises(NonFiniteError, match="infinite or NaN"):
            model.log_prob(symbols)
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        evaluate_likelihood(model, split, accelerator)
