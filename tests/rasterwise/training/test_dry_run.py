"""A dry run: its figures are what their names say, and it leaves nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from rasterwise.data.indexed import tensor_split
from rasterwise.data.splits import Batch
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.dry_run import costs_of, dry_run, extrapolated_costs
from rasterwise.training.objective import Losses, Objective
from tests.rasterwise.training.test_loop import OBJECTIVES, data_for


class Linear(Objective):
    """y = silu(x W) with 3 inputs and 5 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(3, 5, bias=False)  # type: ignore[assignment]

    def forward(self, batch: Batch) -> Losses:
        return Losses(nn.functional.silu(self.model(batch.values.flatten(1))).mean(), {})


def test_costs_by_hand() -> None:
    """Two products in all, the weights' gradient included; kept are the inputs and what the nonlinearity reads."""
    costs = costs_of(Linear(), Batch(torch.randn(7, 3, 1, 1)), Accelerator(cpu=True))
    assert costs.flops == 2 * (2 * 7 * 3 * 5)
    assert costs.activation_bytes == 4 * (7 * 3 + 7 * 5)


@pytest.mark.parametrize("build", OBJECTIVES)
def test_a_large_batch_is_extrapolated(build: Callable[[], Objective]) -> None:
    """From eight items to what sixteen cost."""
    objective = build()
    values, labels = data_for(objective)
    batch = Batch(values.repeat(2, 1, 1, 1)[:16], labels.repeat(2)[:16])
    found = extrapolated_costs(objective, batch, Accelerator(cpu=True))
    exact = costs_of(objective, batch, Accelerator(cpu=True))
    assert found.flops == pytest.approx(exact.flops, rel=0.01)
    assert found.activation_bytes == pytest.approx(exact.activation_bytes, rel=0.05)


def test_memory_is_that_of_one_part_and_flops_of_the_whole_step() -> None:
    """Accumulation cuts the activations, not the FLOPs; averaging adds a copy of the weights."""
    split = tensor_split(torch.randn(40, 3, 1, 1))
    reports = []
    for accumulate, ema_decay in ((1, 0.9), (4, 0.0)):
        config = TrainingConfig(batch_size=32, accumulate=accumulate, ema_decay=ema_decay, device="cpu")
        objective = Linear()
        objective.model = nn.Linear(3, 2**18, bias=False)  # type: ignore[assignment]  # 3 MiB
        reports.append(dry_run(config, objective, split, config, start_accelerator(config)))
    whole, parts = reports
    assert whole["parameters"] == 3 * 2**18
    assert whole["flops_a_step"] == parts["flops_a_step"] == 2 * (2 * 32 * 3 * 2**18)
    memory = whole["memory_mib"]
    assert (memory["weights"], memory["gradients"], memory["optimizer"]) == (3, 3, 6)
    assert (memory["averaged_weights"], parts["memory_mib"]["averaged_weights"]) == (3, 0)
    assert (memory["activations"], parts["memory_mib"]["activations"]) == (32, 8)
    assert memory["total"] == 47
    assert whole["configuration"]["batch_size"] == 32
