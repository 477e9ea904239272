"""What a training would cost, measured without training: ``--dry-run``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor

from rasterwise.data.splits import Batch, Split
from rasterwise.measure.flops import flop_counter
from rasterwise.measure.machine import device_name
from rasterwise.training.config import TrainingConfig
from rasterwise.training.gradient_checkpointing import checkpoint_layers
from rasterwise.training.objective import Objective
from rasterwise.training.run.run_folder import configuration

MEASURED_ITEMS = (4, 8)
"""The costs of a larger batch are extrapolated from these two sizes: both costs are linear in the items."""

MIB = 2**20


@dataclass(frozen=True)
class Costs:
    """The costs of one forward and backward pass.

    Attributes:
        flops: FLOPs of matrix products, convolutions and attention as computed, a multiply-add counted as two.
        activation_bytes: Bytes that the forward pass keeps for the backward pass, weights excluded.
    """

    flops: int
    activation_bytes: int


def dry_run(
    options: Any, objective: Objective, split: Split, training: TrainingConfig, accelerator: Accelerator
) -> dict[str, Any]:
    """Compute a few items of the first batch forward and backward; write nothing.

    Args:
        options: The command's, resolved.
        objective: The model with its losses; on the CPU.
        split: What would be trained on.
        training: How it would be trained.
        accelerator: From ``start_accelerator``.

    Returns:
        The configuration, the model's trained parameters, the FLOPs of a step (of all processes together) and the
        memory of one process in MiB: weights, gradients, AdamW's moments, averaged weights, and the activations of
        the part of a batch that is computed at once. Not included are short-lived tensors within a pass, such as
        the layer that gradient checkpointing is computing again, and, with FSDP, the whole weights that evaluation
        and saving gather. Adversaries are counted with it.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    training.check_processes(world)
    shards = world if accelerator.distributed_type == DistributedType.FSDP else 1
    learners = (objective, *objective.adversaries)
    for one in learners:
        one.to(accelerator.device).train()
    if training.gradient_checkpointing:
        checkpoint_layers(objective.model)
    batch = next(split.shuffled(training.batch_size, seed=training.seed, rank=rank, world=world))
    batch = batch.to(accelerator.device)
    items = len(batch) // training.accumulate
    costs = extrapolated_costs(objective, batch[:items], accelerator)
    trained = [weight for one in learners for weight in one.parameters() if weight.requires_grad]
    weights = _bytes([tensor for one in learners for tensor in (*one.parameters(), *one.buffers())])
    averaged = _bytes([*objective.model.parameters(), *objective.model.buffers()])
    memory = {
        "weights": weights / shards,
        "gradients": _bytes(trained) / shards,
        "optimizer": 2 * _bytes(trained) / shards,
        "averaged_weights": averaged / shards if training.ema_decay else 0,
        "activations": costs.activation_bytes,
    }
    memory["total"] = sum(memory.values())
    return {
        "configuration": configuration(options),
        "device": device_name(accelerator.device),
        "parameters": sum(weight.numel() for weight in objective.parameters() if weight.requires_grad),
        "flops_a_step": costs.flops * training.accumulate * world,
        "memory_mib": {name: round(value / MIB, 1) for name, value in memory.items()},
    }


def extrapolated_costs(objective: Objective, batch: Batch, accelerator: Accelerator) -> Costs:
    """The costs of a batch, extrapolated from those of its first items if it has many."""
    with accelerator.autocast():
        # The first batch initialises a codebook or PixelCNN++'s gains, a cost that does not recur.
        objective(batch[: MEASURED_ITEMS[0]])
    if len(batch) <= MEASURED_ITEMS[1]:
        return costs_of(objective, batch, accelerator)
    few, more = (costs_of(objective, batch[:count], accelerator) for count in MEASURED_ITEMS)
    factor = (len(batch) - MEASURED_ITEMS[0]) / (MEASURED_ITEMS[1] - MEASURED_ITEMS[0])
    return Costs(
        *(
            round(a + factor * (b - a))
            for a, b in ((few.flops, more.flops), (few.activation_bytes, more.activation_bytes))
        )
    )


def costs_of(objective: Objective, batch: Batch, accelerator: Accelerator) -> Costs:
    """The measured costs of a batch. Adversaries compute after the objective, when its activations are freed."""
    costs = [_costs_of_one(one, batch, accelerator) for one in (objective, *objective.adversaries)]
    return Costs(sum(one.flops for one in costs), max(one.activation_bytes for one in costs))


def _costs_of_one(objective: Objective, batch: Batch, accelerator: Accelerator) -> Costs:
    own = {tensor.untyped_storage().data_ptr() for tensor in (*objective.parameters(), *objective.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no address is reused

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with flop_counter() as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, _unchanged), accelerator.autocast():
            losses = objective(batch)
        losses.total.backward()
    objective.zero_grad()
    return Costs(int(counter.get_total_flops()), sum(storage.nbytes() for storage in kept.values()))


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _bytes(tensors: list[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
