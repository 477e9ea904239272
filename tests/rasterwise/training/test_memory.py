"""A training that surely does not fit the memory is refused before its model is built."""

from __future__ import annotations

import dataclasses
from typing import Any

import psutil
import pytest
import torch
from accelerate import Accelerator

from pipeline.models import model_classes
from rasterwise.errors import InputError
from rasterwise.models.pretrained import Pretrained
from rasterwise.symbols.grid import Grid
from rasterwise.training.config import TrainingConfig
from rasterwise.training.memory import built_to_fit, least_activations
from stage1_vqvae import VQVAE, VQVAEConfig

MODELS: list[tuple[type[Pretrained], Any]] = [
    (VQVAE, VQVAEConfig()),
    *((one, one.config_class(grid=Grid(1, 10, 8, 4))) for one in model_classes().values()),
]


@pytest.mark.parametrize(("model", "config"), MODELS, ids=[model.kind for model, _ in MODELS])
def test_every_model_has_a_size_before_it_is_built(
    model: type[Pretrained], config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the model, which draws the same weights as without a look at its size; too large, it is named."""
    training, accelerator = TrainingConfig(batch_size=8, device="cpu"), Accelerator(cpu=True)
    torch.manual_seed(0)
    fits = built_to_fit(model, config, training, accelerator)
    torch.manual_seed(0)
    expected = model(config).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in fits.state_dict().items())
    size = sum(tensor.nbytes for tensor in fits.parameters())
    least = 4 * size + least_activations(config, training, accelerator)
    for total, refused in ((least, False), (least - 1, True)):
        memory = type("Memory", (), {"total": total})
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        if refused:
            with pytest.raises(InputError, match=r"parameters in parts of 8 takes .* GiB at the least"):
                built_to_fit(model, config, training, accelerator)
        else:
            built_to_fit(model, config, training, accelerator)


def test_width_depth_and_batch_count_together() -> None:
    """Each is allowed alone. The parts of an accumulated batch are in memory one after the other."""
    accelerator, kind = Accelerator(cpu=True), model_classes()["gated-pixelcnn"]
    config = kind.config_class(grid=Grid(1, 8, 8, 4), width=64, depth=8)
    training = TrainingConfig(batch_size=2**20, device="cpu")
    least = least_activations(config, training, accelerator)
    assert least == 2**20 * 64 * 64 * 8 * 2
    parts = dataclasses.replace(training, accumulate=2**10)
    assert least_activations(config, parts, accelerator) == least // 2**10
    larger = dataclasses.replace(config, width=4096)
    with pytest.raises(InputError, match="make the model smaller"):
        built_to_fit(kind, larger, training, accelerator)
