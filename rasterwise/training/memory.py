"""Models that cannot be trained in the memory that there is, refused before they are built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from rasterwise.errors import InputError
from rasterwise.processes import processes_here
from rasterwise.training.config import TrainingConfig

GIB = 2**30
COPIES = 4
"""Of each weight: itself, its gradient, and AdamW's two moments."""
LEAST_BYTES = 2
"""Of an activation, which autocast may keep in half precision."""

Model = TypeVar("Model", bound=nn.Module)


def built_to_fit(
    build: Callable[[Any], Model], config: Any, training: TrainingConfig, accelerator: Accelerator
) -> Model:
    """Build a model, if its training does not surely take more memory than there is.

    Its size is that of the same model on torch's meta device, where tensors have shapes and no values. This is the
    least that a training takes; a dry run measures what it does take.

    Args:
        build: Makes a model of a configuration.
        config: The configuration.
        training: How it is trained.
        accelerator: Of the training. Sharded weights must fit whole too, but without gradients and moments.

    Raises:
        InputError: It surely does not fit.
    """
    try:
        with torch.device("meta"):
            shapes = build(config)
    except InputError:
        raise
    except Exception:  # its constructor looks at values
        return build(config)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in shapes.parameters())
    sharded = accelerator.distributed_type == DistributedType.FSDP
    needed = weights * (1 if sharded else COPIES) + least_activations(config, training, accelerator)
    has = memory_of(accelerator.device)
    if needed > has:
        raise InputError(
            f"training a model of {sum(tensor.numel() for tensor in shapes.parameters()):,} parameters in parts of "
            f"{_items(training, accelerator):,} takes {needed / GIB:,.0f} GiB at the least, and {has / GIB:,.0f} GiB "
            "are there; make the model smaller, or the parts, by --batch-size or --accumulate"
        )
    return build(config)


def least_activations(config: Any, training: TrainingConfig, accelerator: Accelerator) -> int:
    """Bytes of one tensor as wide as the model for each layer, which the backward pass needs; 0 where none is known.

    Gradient checkpointing keeps as much.
    """
    layers = getattr(config, "depth", None) or getattr(config, "blocks", None)
    grid, width = getattr(config, "grid", None), getattr(config, "width", None)
    if grid is None or not layers or not width:
        return 0
    return int(_items(training, accelerator) * grid.height * grid.width * width * layers * LEAST_BYTES)


def memory_of(device: torch.device) -> int:
    """Bytes of a device's memory, or of this process's share of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total) // processes_here()


def _items(training: TrainingConfig, accelerator: Accelerator) -> int:
    return max(1, training.batch_size // training.accumulate // accelerator.num_processes)
