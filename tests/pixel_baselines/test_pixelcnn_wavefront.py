"""PixelCNN by fronts gives every symbol the logits of the teacher-forced pass, and draws the same pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pixel_baselines.pixelcnn import PixelCNN, PixelCNNConfig
from pixel_baselines.pixelcnn_wavefront import PixelCNNWavefront
from rasterwise.grid import Grid
from rasterwise.sampling import Sampling
from tests.autoregressive_suite import CLASSES, random_condition, random_symbols, randomized

GRIDS = [
    Grid(1, 7, 11, 4),
    Grid(1, 3, 5, 256),
    Grid(3, 6, 9, 8),
    Grid(2, 5, 2, 5),
    Grid(1, 1, 6, 3),
    Grid(3, 6, 1, 4),
]
KERNELS = [(7, 3), (3, 3), (3, 5), (5, 7)]


def build(grid: Grid, input_kernel: int, kernel: int, **changes: Any) -> PixelCNN:
    config = PixelCNNConfig(
        grid=grid,
        classes=CLASSES,
        width=12,
        blocks=3,
        input_kernel=input_kernel,
        kernel=kernel,
        output_width=24,
        **changes,
    )
    model = randomized(PixelCNN(config), 0.1)
    assert isinstance(model, PixelCNN)
    return model


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("input_kernel", "kernel"), KERNELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_by_fronts_is_naive(
    grid: Grid, input_kernel: int, kernel: int, dtype: torch.dtype, tolerance: float
) -> None:
    """At every symbol: grids narrower than the lag, one row, one column, kernels that reach further than the first."""
    embedding = "learned" if grid.channels == 2 else "scale"
    model = build(grid, input_kernel, kernel, embedding=embedding, embedding_width=3).to(dtype)
    symbols, condition = random_symbols(grid, 3), random_condition(3)
    with torch.no_grad():
        expected = grid.flatten(model(symbols, condition))
    decoder, flat = model.wavefront_decoder(3, condition), grid.flatten(symbols)
    for places in decoder.places:
        for _ in range(2):  # looking twice is as looking once
            difference = (decoder.logits() - expected[:, places]).abs().max().item()
            assert difference < tolerance, places
        decoder.advance(flat[:, places])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_pictures_are_those_of_raster_order(grid: Grid) -> None:
    """The same seed draws the same picture by fronts and symbol by symbol: guided, completed, in batches."""
    model = build(grid, 5, 3)
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
        by_fronts = model.sample(3, **way, generator=torch.Generator().manual_seed(5))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "wavefront_decoder", lambda batch_size, condition=None: None)
            in_order = model.sample(3, **way, generator=torch.Generator().manual_seed(5))
        assert torch.equal(by_fronts, in_order), way


def test_symbols_may_be_told_unseen() -> None:
    """Advancing without looking leaves the walk where looking would have."""
    grid = GRIDS[2]
    model = build(grid, 5, 3)
    symbols = random_symbols(grid, 2)
    decoder, flat = model.wavefront_decoder(2), grid.flatten(symbols)
    for places in decoder.places[:-1]:
        decoder.advance(flat[:, places])
    with torch.no_grad():
        expected = grid.flatten(model(symbols))[:, decoder.places[-1]]
    torch.testing.assert_close(decoder.logits(), expected, rtol=0, atol=1e-10)


def test_there_are_fewer_fronts_than_symbols() -> None:
    """W + (p + 1)(H − 1) a channel, p columns being all that a row sees to the right in the row above."""
    model = build(Grid(3, 8, 16, 4), 5, 3)
    decoder = model.wavefront_decoder(1)
    assert len(decoder.places) == 3 * (16 + 3 * 7)
    assert isinstance(model.sampling_decoder(_plan(model)), PixelCNNWavefront)
    assert not isinstance(model.sampling_decoder(_plan(model), recorded=True), PixelCNNWavefront)


def _plan(model: PixelCNN) -> Any:
    from rasterwise.sampling_plan import SamplingPlan

    return SamplingPlan.of(model.grid, 1)


def test_features_kept_do_not_grow_with_the_width() -> None:
    """All but the symbols themselves is kept for the last times alone."""

    def elements(width: int) -> int:
        return build(Grid(3, 5, width, 4), 3, 3).wavefront_decoder(2).features.numel()

    assert elements(24) == elements(6)
