"""Gradient checkpointing changes what is held in memory, and no bit of what is computed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from pixel_baselines import (
    DiagonalBiLSTM,
    DiagonalBiLSTMConfig,
    GatedPixelCNN,
    GatedPixelCNNConfig,
    ImageGPT,
    ImageGPTConfig,
    PixelCNN,
    PixelCNNConfig,
    PixelCNNPP,
    PixelCNNPPConfig,
    RowLSTM,
    RowLSTMConfig,
)
from rasterwise.data.splits import Batch
from rasterwise.symbols.grid import Grid
from rasterwise.training.dry_run import costs_of
from rasterwise.training.gradient_checkpointing import checkpoint_layers
from rasterwise.training.likelihood import LikelihoodObjective
from rasterwise.training.objective import Objective
from stage1_vqvae import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage2_prior import (
    AnyOrderPrior,
    AnyOrderPriorConfig,
    HierarchicalPrior,
    HierarchicalPriorConfig,
    TransformerPrior,
    TransformerPriorConfig,
)
from tests.autoregressive_suite import random_symbols
from tests.rasterwise.training.test_loop import SHORT, assert_same_end, prior_objective, replace, run_training

GRID = Grid(1, 10, 4, 5)
DATA: dict[str, Any] = {"grid": GRID, "classes": ("a", "b")}
MODELS = {
    "transformer-prior": lambda: TransformerPrior(TransformerPriorConfig(**DATA, depth=3, width=16, heads=2)),
    "any-order-prior": lambda: AnyOrderPrior(AnyOrderPriorConfig(**DATA, depth=3, width=16, heads=2)),
    "hierarchical-prior": lambda: HierarchicalPrior(
        HierarchicalPriorConfig(**DATA, depth=3, top_depth=2, encoder_depth=1, width=16, heads=2)
    ),
    "image-gpt": lambda: ImageGPT(ImageGPTConfig(**DATA, depth=3, width=16, heads=2, dropout=0.3)),
    "pixelcnn": lambda: PixelCNN(PixelCNNConfig(**DATA, width=8, blocks=3)),
    "gated-pixelcnn": lambda: GatedPixelCNN(GatedPixelCNNConfig(**DATA, width=8, depth=3)),
    "pixelcnn-pp": lambda: PixelCNNPP(PixelCNNPPConfig(**DATA, width=8, blocks=1, dropout=0.5)),
    "row-lstm": lambda: RowLSTM(RowLSTMConfig(**DATA, width=8, depth=3)),
    "diagonal-bilstm": lambda: DiagonalBiLSTM(DiagonalBiLSTMConfig(**DATA, width=8, depth=3)),
    "vqvae": lambda: VQVAE(
        VQVAEConfig(
            factor=2,
            quantizer=VectorQuantizerConfig(codebook_size=8, code_width=4),
            autoencoder=ConvolutionalConfig(width=16),
        )
    ),
}


def built(name: str, dtype: torch.dtype) -> tuple[Objective, Batch]:
    torch.manual_seed(0)
    model = MODELS[name]().to(dtype)  # type: ignore[no-untyped-call]
    labels = torch.tensor([0, 1, 0])
    if name == "vqvae":
        return LearnedTokenizerObjective(model), Batch(
            torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8), labels
        )
    return LikelihoodObjective(model, label_dropout=0.5), Batch(random_symbols(GRID, 3), labels)


def gradients(objective: Objective, batch: Batch, autocast: bool) -> dict[str, torch.Tensor]:
    """Of the second batch, when codebooks and gains have started; and all that a pass changes beside them."""
    for _ in range(2):
        objective.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            losses = objective(batch)
        losses.total.backward()
    found = {name: parameter.grad for name, parameter in objective.named_parameters()}
    return {**found, **dict(objective.named_buffers()), "random state": torch.get_rng_state()}  # type: ignore[dict-item]


@pytest.mark.parametrize("kind", ["float64", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_the_same_to_the_last_bit(name: str, kind: str) -> None:
    """Of every model, dropout, autocast and codebook included; and the random state goes on alike."""
    dtype = torch.float64 if kind == "float64" and name != "vqvae" else torch.float32
    plain, batch = built(name, dtype)
    expected = gradients(plain, batch, kind == "bf16")
    checkpointed, batch = built(name, dtype)
    checkpoint_layers(checkpointed.model)
    found = gradients(checkpointed, batch, kind == "bf16")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert value is not None, key
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("name", MODELS)
def test_less_is_kept_and_more_computed(name: str) -> None:
    """Of every model; in evaluation nothing is computed twice."""
    accelerator = Accelerator(cpu=True)
    objective, batch = built(name, torch.float32)
    objective(batch)
    before = costs_of(objective, batch, accelerator)
    evaluated = costs_of(objective.eval(), batch, accelerator)
    objective.train()
    checkpoint_layers(objective.model)
    after = costs_of(objective, batch, accelerator)
    assert after.activation_bytes < 0.9 * before.activation_bytes
    assert before.flops < after.flops < 1.5 * before.flops
    assert costs_of(objective.eval(), batch, accelerator) == evaluated


def test_a_copy_has_its_own_layers() -> None:
    """As the averaged weights do: changing them does not change the model, nor the other way round."""
    objective, batch = built("gated-pixelcnn", torch.float32)
    checkpoint_layers(objective.model)
    twin = copy.deepcopy(objective)
    with torch.no_grad():
        for parameter in objective.model.parameters():
            parameter.zero_()
    torch.manual_seed(1)
    assert objective(batch).total != twin(batch).total


def test_a_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    """Bit for bit, averages, optimizer and random state included."""
    run_training(prior_objective(), tmp_path / "plain")
    run_training(prior_objective(), tmp_path / "less", replace(SHORT, gradient_checkpointing=True))
    assert_same_end(tmp_path / "plain", tmp_path / "less")
