"""Averaged weights, the learning rate's course, and what weight decay is for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rasterwise.training.optimizer import averaged_model, learning_rate_share, parameter_groups


def test_averaged_weights() -> None:
    """An exponential moving average with a short memory at first; buffers follow the model."""
    model = nn.BatchNorm1d(1)
    averaged = averaged_model(model, 0.9)
    assert averaged is not None
    expected = torch.zeros(1)
    for step in range(30):
        with torch.no_grad():
            model.weight.fill_(step)
            model.running_mean.fill_(step)  # type: ignore[union-attr]
        averaged.update_parameters(model)
        share = 0.0 if step == 0 else min(0.9, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * step
    torch.testing.assert_close(averaged.module.weight.detach(), expected)
    assert averaged.module.running_mean.item() == 29
    assert averaged_model(model, 0) is None


def test_learning_rate() -> None:
    """Rises in a line to 1, then falls in half a cosine to 0."""
    shares = [learning_rate_share(step, steps=110, warmup_steps=10) for step in range(111)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == shares[10] == 1
    assert shares[60] == pytest.approx(0.5)
    assert shares[110] == pytest.approx(0)


def test_weight_decay_is_for_matrices_and_kernels() -> None:
    """Biases and gains have none; what is frozen is in no group."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Linear(2, 2))
    module[2].bias.requires_grad_(False)
    with_decay, without = parameter_groups(module, 0.1)
    assert [parameter.ndim for parameter in with_decay["params"]] == [4, 2]
    assert [parameter.ndim for parameter in without["params"]] == [1, 1, 1]
    assert (with_decay["weight_decay"], without["weight_decay"]) == (0.1, 0.0)
