"""Weights sharded over processes (FSDP2), as Accelerate's configuration asks, and gathered where they must be whole."""

from __future__ import annotations

import functools
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

from rasterwise.errors import InputError
from rasterwise.models.pretrained import Pretrained
from rasterwise.training.objective import Losses

Model = TypeVar("Model", bound=Pretrained)


def configure_sharding(accelerator: Accelerator) -> None:
    """Have Accelerate shard as its configuration asks, also on CPUs, and leave the precision to autocast.

    Raises:
        InputError: The configuration asks for something that trainings here do not support.
    """
    state = accelerator.state
    if state.distributed_type == DistributedType.MULTI_CPU and parse_flag_from_env("ACCELERATE_USE_FSDP"):
        if torch.accelerator.is_available():
            raise InputError("FSDP shards over this machine's GPUs; leave --device cpu out")
        # Accelerate shards on GPUs only and would silently keep whole weights; torch supports CPUs.
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        # In both places, as Accelerate does on GPUs: it keeps copying the one over the other.
        state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    if state.distributed_type != DistributedType.FSDP:
        return
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

    plugin = state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise InputError(f"Accelerate's configuration has fsdp_version {plugin.fsdp_version}, expected 2")
    refused = {
        "fsdp_offload_params": isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        # The backward pass would draw different dropout than the forward pass; --gradient-checkpointing does not.
        "fsdp_activation_checkpointing": plugin.activation_checkpointing,
        "fsdp_ignored_modules": plugin.ignored_modules,
    }
    for name in (name for name, asked in refused.items() if asked):
        raise InputError(
            f"Accelerate's configuration has {name}, which trainings here do not support; leave it out"
        )
    # By default, FSDP casts weights, gradients and losses to the precision; here autocast decides what is cast.
    plugin.mixed_precision_policy = MixedPrecisionPolicy()
    _register_losses()


@functools.cache
def _register_losses() -> None:
    """Let FSDP find, inside ``Losses``, the tensor at which the backward pass begins."""
    from torch.export import register_dataclass

    register_dataclass(Losses)


def check_sharding(model: Pretrained, accelerator: Accelerator) -> None:
    """Raise an InputError if the configuration would shard a model that does not allow it.

    A codebook's statistics and PixelCNN++'s initialisation from data change weights outside the optimizer, which
    does not work on shards.
    """
    if accelerator.distributed_type == DistributedType.FSDP and not model.can_be_sharded:
        raise InputError(
            f"Accelerate's configuration asks for FSDP, which a {model.kind} is not trained with; use a "
            "multi-GPU configuration without it (DDP)"
        )


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, which takes half a second to import."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor's full value; all processes call this if it is sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def sharded_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Shard a tensor, which is whole and equal on all processes, as another one of its shape is sharded."""
    if not is_sharded(other) or tensor.shape != other.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = other.device_mesh, other.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(other.device), mesh, placements, src_data_rank=None)


def shard_like(module: nn.Module, other: nn.Module) -> None:
    """Shard the parameters of a module as those of another one with the same structure are sharded."""
    for (name, parameter), target in zip(module.named_parameters(), other.parameters(), strict=True):
        if is_sharded(target):
            owner, _, own_name = name.rpartition(".")
            shard = nn.Parameter(sharded_like(parameter.detach(), target), parameter.requires_grad)
            setattr(module.get_submodule(owner), own_name, shard)


def whole_model(model: Model) -> Model:
    """The model itself, or a copy with whole weights if they are sharded; all processes call this.

    Evaluation, sampling and saving need whole weights, some of them on one process only. The copy takes as much
    memory as the weights and is freed after its use.
    """
    if not any(is_sharded(parameter) for parameter in model.parameters()):
        return model
    with torch.random.fork_rng(devices=[]):
        copy = type(model)(model.config)
    copy.to(next(model.parameters()).device)
    own = copy.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():  # one by one: gathering all at once may not fit
            own[name].copy_(whole(tensor))
    copy.trained_on = model.trained_on
    return copy.train(model.training)
