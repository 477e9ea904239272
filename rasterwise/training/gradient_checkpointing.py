"""Gradient checkpointing: layers keep their inputs only and compute the rest again in the backward pass."""

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rasterwise.models.pretrained import Pretrained


def checkpoint_layers(model: Pretrained) -> None:
    """Have training compute a model's ``checkpointed_layers`` twice, so that memory holds one layer's activations.

    Gradients are the same bit for bit, with dropout too: the second pass repeats the draws of the first, and the
    random state afterwards is the same. Evaluation, sampling and the names of the weights do not change.

    References:
        Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016 (arXiv 1604.06174).
    """
    for layer in model.checkpointed_layers():
        # A method, not a closure: a copy of the model then calls its own layers.
        layer.forward = MethodType(_forward, layer)


def _forward(layer: nn.Module, *inputs: Any, **settings: Any) -> Any:
    forward = functools.partial(type(layer).forward, layer)
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*inputs, **settings)
    return checkpoint(forward, *inputs, use_reentrant=False, **settings)
