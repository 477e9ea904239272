"""AdamW, its learning rate at each step, and averaged weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rasterwise.training.config import TrainingConfig


def adamw(module: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW on all parameters of a module that require a gradient; each step sets its learning rate.

    References:
        Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019 (arXiv 1711.05101).
    """
    groups = parameter_groups(module, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay (of two dimensions or more) and without it (biases, gains, scales)."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def learning_rate_share(step: int, *, steps: int, warmup_steps: int) -> float:
    """The fraction of the highest learning rate at a step (from 0): a linear rise, then half a cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def averaged_model(model: nn.Module, decay: float) -> AveragedModel | None:
    """A copy whose weights are an exponential moving average, and whose buffers are the model's. None for decay 0."""
    if not decay:
        return None

    def average(averages: Any, parameters: Any, updates: Tensor | int) -> None:
        # The first updates average over few steps, so that short runs forget the initial weights.
        share = 1 - min(decay, (1 + float(updates)) / (10 + float(updates)))
        torch._foreach_lerp_(averages, parameters, share)

    return AveragedModel(model, multi_avg_fn=average)
