"""Weights and KV cache in bfloat16: what is drawn is what is scored, bit for bit, or a line says why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.models import model_classes
from pipeline.verification.batches import repeats
from pipeline.verification.likelihood import normalisation, samples_follow_probabilities
from pixel_baselines import ImageGPT, ImageGPTConfig
from rasterwise.decoding.plan import SamplingPlan
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.likelihoods import categorical_log_prob
from rasterwise.symbols.text import TextBatch
from stage2_prior import (
    DALLE,
    AnyOrderPrior,
    AnyOrderPriorConfig,
    DALLEConfig,
    HierarchicalPrior,
    HierarchicalPriorConfig,
    Parti,
    PartiConfig,
    TransformerPrior,
    TransformerPriorConfig,
)
from tests.autoregressive_suite import holds, random_symbols, randomized

GRID = Grid(1, 5, 4, 7)
SIZES: dict[str, Any] = {"depth": 2, "width": 24, "heads": 2}
MODELS: dict[str, Callable[[Grid], AutoregressiveModel]] = {
    "transformer-prior": lambda grid: TransformerPrior(TransformerPriorConfig(grid=grid, **SIZES)),
    "hierarchical-prior": lambda grid: HierarchicalPrior(
        HierarchicalPriorConfig(grid=grid, top_depth=1, encoder_depth=1, **SIZES)
    ),
    "any-order-prior": lambda grid: AnyOrderPrior(AnyOrderPriorConfig(grid=grid, **SIZES)),
    "any-order-prior in steps": lambda grid: AnyOrderPrior(
        AnyOrderPriorConfig(grid=grid, final_random_share=1.0, **SIZES)
    ).in_steps(3),
    "image-gpt": lambda grid: ImageGPT(ImageGPTConfig(grid=grid, **SIZES)),
    "dalle": lambda grid: DALLE(DALLEConfig(grid=grid, text_length=3, **SIZES)),
    "parti": lambda grid: Parti(PartiConfig(grid=grid, text_length=3, encoder_depth=1, **SIZES)),
}


@pytest.fixture(autouse=True)
def has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """On any processor: one that lacks the products imitates them, with the same rounding."""
    monkeypatch.setattr("rasterwise.models.autoregressive.has_bf16", lambda device: True)


def built(name: str, grid: Grid = GRID) -> AutoregressiveModel:
    return randomized(MODELS[name](grid), 0.2).float()


def texts(model: AutoregressiveModel, batch_size: int) -> Condition | None:
    if not model.takes_text:
        return None
    return Condition(text=TextBatch.of([torch.arange(1 + row % 3) for row in range(batch_size)]))


def test_every_transformer_is_here() -> None:
    with_bf16 = {kind for kind, model in model_classes().items() if model.decodes_in_bf16}
    assert with_bf16 == {name.removesuffix(" in steps") for name in MODELS}


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_drawn_is_what_is_scored(name: str, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits that symbols are drawn from are those that ``log_prob`` reads, bit for bit; both are in bfloat16."""
    model = built(name)
    rounded, condition = model.in_bf16(), texts(model, batch_size)
    seen: list[Tensor] = []
    draw = SamplingPlan.draw

    def recorded(plan: SamplingPlan, logits: Tensor, at: slice) -> Tensor:
        seen.append(logits.clone())
        return draw(plan, logits, at)

    monkeypatch.setattr(SamplingPlan, "draw", recorded)
    symbols = rounded.sample(batch_size, condition, generator=torch.Generator().manual_seed(0))
    logits = torch.cat(seen, 1)
    assert logits.dtype == torch.bfloat16
    sequence = GRID.flatten(symbols)[:, torch.cat(list(rounded.order))]
    with torch.no_grad():
        scored = rounded.log_prob(symbols, condition)
        exact = model.log_prob(symbols, condition)
        teacher_forced = rounded.logits_from(rounded.embed(symbols), condition)
    by_site = categorical_log_prob(logits, sequence)
    raster = GRID.unflatten(by_site[:, torch.cat(list(rounded.order)).argsort()])
    assert torch.equal(scored, raster.flatten(1).sum(1))
    assert (scored != exact).all()
    assert (scored - exact).abs().max() < 1.5
    in_one_pass = categorical_log_prob(teacher_forced, symbols).flatten(1).sum(1)
    assert not torch.equal(scored, in_one_pass), "one pass rounds otherwise, or this test shows nothing"


@pytest.mark.parametrize("name", ["transformer-prior", "any-order-prior in steps", "image-gpt"])
def test_it_is_a_distribution_that_samples_follow(name: str) -> None:
    """Probabilities sum to 1, are the same twice, and pass a chi-square test; the model itself stays as it was."""
    model = built(name, Grid(1, 2, 2, 3))
    symbols = random_symbols(model.grid, 2)
    with torch.no_grad():
        before = model.log_prob(symbols)
    rounded = model.in_bf16()
    holds(normalisation(rounded, symbols))
    holds(repeats(rounded, symbols))
    holds(samples_follow_probabilities(rounded, 8000, least=1e-4, batch_size=2000))
    decoder: Any = rounded.decoder(2)
    assert {one.dtype for one in rounded.parameters()} == {torch.bfloat16}
    assert decoder.cache.memory.dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.equal(model.log_prob(symbols), before)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that are no such transformers, the fixed point, and processors without the arithmetic: one line each."""
    for kind in ("chameleon", "gated-pixelcnn"):
        model = model_classes()[kind]
        with pytest.raises(InputError, match=f"a {kind} is decoded in float32 alone"):
            model(model.config_class(grid=Grid(1, 2, 2, 3))).in_bf16()
    prior = built("transformer-prior")
    plan = SamplingPlan.of(GRID, 1)
    for window in (None, 3):
        with pytest.raises(InputError, match="rounds in another order than bf16 decoding"):
            prior.in_bf16().draw(plan, method="fixed-point", window=window)
    monkeypatch.undo()
    for flags, has in (("fma avx2 avx512f", False), ("avx512_bf16", True), ("amx_bf16 avx2", True)):
        monkeypatch.setattr("rasterwise.measure.machine._cpu_info", lambda name, flags=flags: flags)
        if has:
            prior.in_bf16()
        else:
            with pytest.raises(InputError, match="bf16 was asked for on a device without it"):
                prior.in_bf16()
