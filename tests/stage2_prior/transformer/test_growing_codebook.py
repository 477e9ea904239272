"""Priors of codes whose codebook grows along the raster order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline import ImagePipeline
from pipeline.cli import main as rasterwise
from pipeline.verification.decoding import fixed_point_is_sequential, guidance_is_exact
from pipeline.verification.subject import every_grid
from rasterwise.decoding.sampling import Sampling
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.growing_codebook import allowed_codes
from rasterwise.symbols.two_grids import joined
from stage2_prior import (
    HierarchicalPrior,
    HierarchicalPriorConfig,
    TransformerPrior,
    TransformerPriorConfig,
)
from tests.autoregressive_suite import (
    CLASSES,
    decoded_logits,
    holds,
    random_condition,
    random_symbols,
    randomized,
)
from tests.capturing import capturing
from tests.conftest import TINY_PRIOR, TINY_VQVAE

SIZES = {"depth": 1, "width": 16, "heads": 2, "smallest_codebook": 1}


def transformer(grid: Grid, classes: tuple[str, ...] = ()) -> TransformerPrior:
    return TransformerPrior(TransformerPriorConfig(grid=grid, classes=classes, **SIZES))


def hierarchical(grid: Grid, classes: tuple[str, ...] = ()) -> HierarchicalPrior:
    return HierarchicalPrior(
        HierarchicalPriorConfig(grid=grid, classes=classes, top_depth=1, encoder_depth=1, **SIZES)
    )


def allowed_in(model: AutoregressiveModel) -> torch.Tensor:
    """How many codes each place of a grid may have, int64 ``(C, H, W)``."""
    grid = model.grid

    def of(channels: int, height: int, width: int) -> torch.Tensor:
        sizes = allowed_codes(height * width, grid.levels, 1).view(1, 1, height, width)
        return sizes.expand(-1, channels, -1, -1)

    if isinstance(model, HierarchicalPrior):
        return joined(of(*model.top.grid.shape), of(*model.bottom.grid.shape))[0]
    return of(*grid.shape)[0]


@pytest.mark.parametrize(
    "model",
    [transformer(Grid(1, 2, 3, 4)), transformer(Grid(2, 1, 3, 3)), hierarchical(Grid(1, 5, 1, 5))],
    ids=["one channel", "two channels", "two grids"],
)
def test_all_probability_is_on_the_codes_that_are_allowed(model: AutoregressiveModel) -> None:
    """Over them it sums to 1, any other code has none, and samples are of them, however they are drawn."""
    model, allowed = randomized(model), allowed_in(model)
    grids = every_grid(model.grid)
    legal = (grids < allowed).flatten(1).all(1)
    with torch.no_grad():
        log_prob = model.log_prob(grids)
    assert 0 < legal.sum() < len(legal)
    assert abs(log_prob[legal].exp().sum() - 1) < 1e-9
    assert log_prob[~legal].exp().max() == 0
    hot = Sampling(temperature=3.0)
    drawn = model.sample(64, sampling=hot, generator=torch.Generator().manual_seed(0))
    assert (drawn < allowed).all()
    assert torch.equal(
        drawn,
        model.sample(64, sampling=hot, generator=torch.Generator().manual_seed(0), method="fixed-point"),
    )


@pytest.mark.parametrize("build", [transformer, hierarchical])
def test_cached_is_naive(build: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """And guided, windowed and captured decoding mask alike."""
    monkeypatch.setattr("rasterwise.decoding.kv_cache.BUCKET", 4)
    grid = Grid(1, 10, 2, 6)
    model = randomized(build(grid, CLASSES))
    allowed = allowed_in(model)
    symbols = random_symbols(grid, 3) % allowed
    with torch.no_grad():
        expected = grid.flatten(model(symbols, random_condition(3)))
    assert (decoded_logits(model.decoder(3, random_condition(3)), symbols) - expected).abs().max() < 1e-10
    holds(guidance_is_exact(model, symbols, random_condition(3)))
    holds(fixed_point_is_sequential(model, 3))
    way = {"n": 3, "condition": random_condition(3), "sampling": Sampling(guidance=1.5)}
    plain = model.sample(**way, generator=torch.Generator().manual_seed(5))
    assert (plain < allowed).all()
    with capturing() as capture:
        assert torch.equal(model.sample(**way, generator=torch.Generator().manual_seed(5)), plain)
    assert any(work.replays > 1 for work in capture.captured)
    if build is transformer:
        windowed = model.sample(
            **way, generator=torch.Generator().manual_seed(5), method="fixed-point", window=5
        )
        assert torch.equal(windowed, plain)


def test_from_images_to_samples(tmp_path: Path) -> None:
    """The prior finds the setting with its codes, and all that verify checks holds."""
    vqvae, codes, prior = (tmp_path / name for name in ("vqvae", "codes", "prior"))
    words = [*TINY_VQVAE, "--smallest-codebook=2", f"--output={vqvae}"]
    assert rasterwise(["train", "vqvae", *words]) == 0
    assert rasterwise(["encode", f"--tokenizer={vqvae}", f"--output={codes}"]) == 0
    assert rasterwise(["train", "prior", f"--codes={codes}", f"--output={prior}", *TINY_PRIOR]) == 0
    assert json.loads((prior / "model" / "config.json").read_text())["config"]["smallest_codebook"] == 2
    pipeline = ImagePipeline.from_pretrained(prior)
    drawn = pipeline.sample_symbols(16, seed=0).symbols
    assert (drawn < allowed_codes(16, 16, 2).view(4, 4)).all()
    assert rasterwise(["verify", str(prior)]) == 0
