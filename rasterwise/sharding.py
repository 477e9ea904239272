"""Weights that Accelerate's configuration shards over processes (FSDP2), and whole again where they must be."""

from __future__ import annotations

from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rasterwise.errors import InputError
from rasterwise.pretrained import Pretrained

Model = TypeVar("Model", bound=Pretrained)


def check_sharding(model: Pretrained, accelerator: Accelerator) -> None:
    """InputError where Accelerate's configuration asks for a sharding that a training does not have.

    A model is sharded if it says that it may be: a codebook's statistics and PixelCNN++'s start from the data
    change weights outside the gradient, which shards would not see.
    """
    if accelerator.distributed_type != "FSDP":
        return
    if not accelerator.is_fsdp2:
        raise InputError("Accelerate's configuration has fsdp_version 1, expected 2")
    if not model.can_be_sharded:
        raise InputError(
            f"Accelerate's configuration asks for FSDP, which a {model.kind} is not trained with; use its "
            "multi-GPU configuration (DDP)"
        )


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, which takes half a second to import."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor's full value; all processes call this where it is sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def sharded_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, sharded as another one of its shape is."""
    if not is_sharded(other) or tensor.shape != other.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)  # type: ignore[attr-defined]


def shard_like(module: nn.Module, other: nn.Module) -> None:
    """Shard the parameters of a module as those of another one of the same structure are."""
    for (name, parameter), target in zip(module.named_parameters(), other.parameters(), strict=True):
        if is_sharded(target):
            owner, _, own_name = name.rpartition(".")
            shard = nn.Parameter(sharded_like(parameter.detach(), target), parameter.requires_grad)
            setattr(module.get_submodule(owner), own_name, shard)


def whole_model(model: Model) -> Model:
    """The model itself, or a copy with whole weights where they are sharded; all processes call this.

    Evaluation, sampling and saving read weights as they please and on one process alone, which shards do not
    allow. The copy takes the memory of the weights and is gone after its use.
    """
    if not any(is_sharded(parameter) for parameter in model.parameters()):
        return model
    with torch.random.fork_rng(devices=[]):
        copy = type(model)(model.config)
    copy.load_state_dict({name: whole(tensor) for name, tensor in model.state_dict().items()})
    copy.trained_on = model.trained_on
    device = next(model.parameters()).device
    return copy.to(device).train(model.training)
