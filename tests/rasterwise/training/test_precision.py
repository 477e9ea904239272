"""Training in float32, bf16 and fp16, the last with its loss scaled: on the CPU, as on a GPU."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixel_baselines import GatedPixelCNN, GatedPixelCNNConfig
from rasterwise.data.indexed import tensor_split
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.likelihood import LikelihoodObjective
from rasterwise.training.loop import train
from rasterwise.training.objective import Objective, TrainingTask
from rasterwise.training.run.run_folder import RunFolder
from stage1_vqvae import VQVAE, ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage2_prior import TransformerPrior, TransformerPriorConfig
from tests.autoregressive_suite import random_symbols
from tests.rasterwise.training.test_loop import (
    SHORT,
    SMALL_GRID,
    Scalar,
    assert_same_end,
    data_for,
    run_training,
    vqvae_objective,
)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_half_precision_goes_on_exactly(precision: Any, tmp_path: Path) -> None:
    """Weights and codebook stay in float32 and finite; a stopped run ends the same, loss scale included."""
    config = replace(SHORT, precision=precision)
    objective = vqvae_objective()
    run_training(objective, tmp_path / "whole", config)
    for name, value in objective.model.state_dict().items():
        assert value.dtype not in (torch.bfloat16, torch.float16), name
        assert torch.isfinite(value.float()).all(), name
    run_training(vqvae_objective(), tmp_path / "parts", config, stop_after=5)
    run_training(vqvae_objective(), tmp_path / "parts", config)
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    step = json.loads((tmp_path / "parts" / "checkpoints" / "step-00000008" / "step.json").read_text())
    assert (step["scaler"] is None) == (precision == "bf16")


def small_objectives(stage: str) -> Objective:
    """One of each stage that can learn a batch by heart: no dropout, and nothing else is drawn anew."""
    torch.manual_seed(0)
    if stage == "vqvae":
        config = VQVAEConfig(
            factor=2,
            quantizer=VectorQuantizerConfig(codebook_size=16, code_width=4),
            autoencoder=ConvolutionalConfig(width=16, blocks=1),
        )
        return LearnedTokenizerObjective(VQVAE(config))
    model: AutoregressiveModel
    if stage == "prior":
        model = TransformerPrior(
            TransformerPriorConfig(grid=SMALL_GRID, depth=1, width=32, heads=2, dropout=0)
        )
    else:
        model = GatedPixelCNN(GatedPixelCNNConfig(grid=SMALL_GRID, width=16, depth=2))
    return LikelihoodObjective(model)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stage", ["vqvae", "prior", "pixel"])
def test_one_batch_is_learned_by_heart(stage: str, precision: Any, tmp_path: Path) -> None:
    """In every precision: two grids cost log 2 each in the end, and images are not far from theirs."""
    objective = small_objectives(stage)
    values = data_for(objective)[0][:2] if stage == "vqvae" else random_symbols(SMALL_GRID, 2)
    config = TrainingConfig(
        steps=120, batch_size=2, learning_rate=1e-2, warmup_steps=5, weight_decay=0, ema_decay=0,
        log_every=1, evaluate_every=120, precision=precision,
    )  # fmt: skip
    accelerator = start_accelerator(config)
    assert (accelerator.scaler is not None) == (precision == "fp16")
    dtypes: set[torch.dtype] = set()
    next(m for m in objective.modules() if isinstance(m, nn.Conv2d | nn.Linear)).register_forward_hook(
        lambda _, __, output: dtypes.add(output.dtype)
    )
    task = TrainingTask(objective, tensor_split(values), evaluate=lambda *_: {})
    train(task, config, RunFolder(tmp_path), accelerator)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = (line for line in lines if line["split"] == "train")
    if stage == "vqvae":
        assert last["psnr_db"] > first["psnr_db"] + 6
    else:
        assert first["nll_nats"] > 10
        assert last["nll_nats"] == pytest.approx(math.log(2), abs=0.1)
    assert dtypes == {{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]}


def test_a_gradient_that_overflows_is_passed_over(tmp_path: Path) -> None:
    """In fp16: no step is taken, the scale is halved, and the metrics leave its norm out. Else it is an error."""
    config = replace(SHORT, precision="fp16", log_every=1)
    accelerator = start_accelerator(config)
    assert accelerator.scaler is not None
    accelerator.scaler.load_state_dict({**accelerator.scaler.state_dict(), "scale": 2.0**126})
    objective = Scalar()
    weights = []
    objective.register_forward_pre_hook(lambda *_: weights.append(objective.weight.detach().clone()))
    split = tensor_split(torch.arange(12.0).view(12, 1, 1, 1))
    task = TrainingTask(objective, split, evaluate=lambda *_: {})
    train(task, config, RunFolder(tmp_path), accelerator)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = ["gradient_norm" in line for line in lines if line["split"] == "train"]
    skipped = logged.index(True)
    assert 0 < skipped < len(logged)
    assert logged == [False] * skipped + [True] * (len(logged) - skipped)
    assert accelerator.scaler.get_scale() == 2.0 ** (126 - skipped)
    assert all(torch.equal(weight, weights[0]) for weight in weights[: skipped + 1])
    assert not torch.equal(weights[skipped + 1], weights[0])
