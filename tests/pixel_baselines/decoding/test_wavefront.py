"""Wavefronts give every symbol the logits of the teacher-forced pass, and draw the images of raster order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pixel_baselines.decoding.wavefront import WavefrontCache, WavefrontDecoder
from pixel_baselines.pixel_rnn.row_lstm import RowLSTM
from pixel_baselines.pixel_rnn.row_lstm_layer import RowLSTMConfig
from pixel_baselines.pixelcnn.model import PixelCNN
from pixel_baselines.pixelcnn.network import PixelCNNConfig
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.decoding.sampling import Sampling
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.grid import Grid
from tests.autoregressive_suite import CLASSES, decoded_logits, random_condition, random_symbols, randomized

GRIDS = [
    Grid(1, 7, 11, 4),
    Grid(1, 3, 5, 256),
    Grid(3, 6, 9, 8),
    Grid(2, 5, 2, 5),
    Grid(1, 1, 6, 3),
    Grid(3, 6, 1, 4),
]
KERNELS = [(7, 3), (3, 3), (3, 5), (5, 7)]


@pytest.fixture(params=["pixelcnn", "row-lstm"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str, grid: Grid, input_kernel: int, kernel: int) -> AutoregressiveModel:
    embedding = {"embedding": "learned", "embedding_width": 3} if grid.channels == 2 else {}
    fields: dict[str, Any] = {
        "grid": grid,
        "classes": CLASSES,
        "width": 12,
        "output_width": 24,
        "input_kernel": input_kernel,
        "kernel": kernel,
        **embedding,
    }
    if name == "pixelcnn":
        return randomized(PixelCNN(PixelCNNConfig(blocks=3, **fields)), 0.1)
    return randomized(RowLSTM(RowLSTMConfig(depth=3, **fields)), 0.1)


def in_wavefronts(model: AutoregressiveModel, *arguments: Any) -> WavefrontDecoder:
    decoder = model.wavefront_decoder(*arguments)
    assert isinstance(decoder, WavefrontDecoder)
    return decoder


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("input_kernel", "kernel"), KERNELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_wavefronts_are_naive(
    name: str, grid: Grid, input_kernel: int, kernel: int, dtype: torch.dtype, tolerance: float
) -> None:
    """At every symbol: grids narrower than the lag, one row, one column, kernels that reach further than the first."""
    model = build(name, grid, input_kernel, kernel).to(dtype)
    symbols, condition = random_symbols(grid, 3), random_condition(3)
    with torch.no_grad():
        expected = grid.flatten(model(symbols, condition))
    found = decoded_logits(in_wavefronts(model, 3, condition), symbols)
    assert (found - expected).abs().max().item() < tolerance


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_images_are_those_of_raster_order(name: str, grid: Grid) -> None:
    """The same seed draws the same image in wavefronts and symbol by symbol: guided, completed, in batches."""
    model = build(name, grid, 5, 3)
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[:, grid.height // 2, grid.width // 3 :] = True
    completion = {"known": random_symbols(grid, 3), "mask": mask}
    ways: list[dict[str, Any]] = [
        {},
        {"sampling": Sampling(0.8, top_k=3, top_p=0.9), "batch_size": 2},
        {"condition": random_condition(3), "sampling": Sampling(guidance=1.5)} | completion,
        {"condition": random_condition(3), "sampling": Sampling(noise="gumbel")} | completion,
    ]
    for way in ways:
        drawn = model.sample(3, **way, generator=torch.Generator().manual_seed(5))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "wavefront_decoder", lambda batch_size, condition=None: None)
            in_order = model.sample(3, **way, generator=torch.Generator().manual_seed(5))
        assert torch.equal(drawn, in_order), way


def test_there_are_fewer_wavefronts_than_symbols(name: str) -> None:
    """W + (p + 1)(H − 1) a channel, p columns being all that a row sees to the right in the row above."""
    model = build(name, Grid(3, 8, 16, 4), 5, 3)
    plan = SamplingPlan.of(model.grid, 1)
    drawn_by = model.sampling_decoder(plan)
    assert isinstance(drawn_by, WavefrontDecoder)
    assert len(drawn_by.steps) == 3 * (16 + 3 * 7)
    assert not isinstance(model.sampling_decoder(plan, captured=True), WavefrontDecoder)


def test_features_kept_do_not_grow_with_the_width(name: str) -> None:
    """All but the symbols themselves is kept for the last times alone."""

    def elements(width: int) -> int:
        kept = vars(in_wavefronts(build(name, Grid(3, 5, width, 4), 3, 3), 2)).values()
        return sum(one.memory.numel() for one in kept if isinstance(one, WavefrontCache))

    assert elements(24) == elements(6) > 0
