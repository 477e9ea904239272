"""Accelerate's handle on devices, processes and precision."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from rasterwise.errors import InputError
from rasterwise.measure.machine import device_name
from rasterwise.training.config import TrainingConfig
from rasterwise.training.fsdp import configure_sharding


def start_accelerator(config: TrainingConfig) -> Accelerator:
    """Accelerate's handle on devices, processes and precision for one run.

    Raises:
        InputError: The device lacks the precision, or Accelerate's configuration asks for an unsupported sharding.
    """
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    mixed = "no" if config.precision == "fp32" else config.precision
    # Without cpu=True, Accelerate treats torchrun's processes on CPUs as unrelated runs.
    cpu = config.device == "cpu" or not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision=mixed, cpu=cpu)
    if mixed == "fp16" and accelerator.device.type == "cpu":
        # Accelerate has no fp16 on CPUs and would silently train in float32; torch supports it.
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu")
    if mixed == "bf16" and accelerator.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"{device_name(accelerator.device)} has no bf16; use --precision fp32")
    configure_sharding(accelerator)
    torch.manual_seed(config.seed + 1_000_003 * accelerator.process_index)
    return accelerator
