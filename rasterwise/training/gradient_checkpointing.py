"""Gradient checkpointing: layers that keep what they read, and compute the rest again in the backward pass."""

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rasterwise.models.pretrained import Pretrained


def checkpoint_layers(model: Pretrained) -> None:
    """Have each of a model's ``checkpointed_layers`` computed twice in training, to hold one at a time in memory.

    Gradients are the same to the last bit, dropout included: the second pass draws what the first one drew, and
    the random state goes on as if there were none. Evaluation and sampling are not changed, nor are the names of
    the weights.

    References:
        Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016 (arXiv 1604.06174).
    """
    for layer in model.checkpointed_layers():
        # A method and no closure: the copy that averages the weights has its own layers, and not these.
        layer.forward = MethodType(_forward, layer)


def _forward(layer: nn.Module, *inputs: Any, **settings: Any) -> Any:
    forward = functools.partial(type(layer).forward, layer)
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*inputs, **settings)
    return checkpoint(forward, *inputs, use_reentrant=False, **settings)
