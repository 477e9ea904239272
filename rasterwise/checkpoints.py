"""Checkpoints of a training run: everything that a run needs to go on, in safetensors and JSON alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rasterwise.files import load_tensors, new_folder, read_json, save_tensors, write_json

STATE_NAME = "state.safetensors"
STEP_NAME = "step.json"
KEPT = 2


def save_checkpoint(
    folder: Path,
    step: int,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
) -> None:
    """Save a run's state as ``folder/step-<step>``, whole or not at all; the last two are kept.

    Args:
        folder: The run's ``checkpoints``.
        step: Optimizer steps done.
        modules: What to save by name: the objective (unwrapped), the averaged weights.
        optimizer: Its state is saved by the number of each parameter.
        accelerator: All processes call this; each one's random state is saved.
    """
    random_states = accelerator.gather(_random_state(accelerator.device)[None].to(accelerator.device)).cpu()
    if not accelerator.is_main_process:
        return
    tensors: dict[str, Tensor] = {"random_states": random_states}
    for name, module in modules.items():
        tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
    state = optimizer.state_dict()
    for number, values in state["state"].items():
        tensors |= {f"optimizer/{number}/{key}": torch.as_tensor(value) for key, value in values.items()}
    groups: list[dict[str, Any]] = [
        {key: value for key, value in group.items() if key != "lr"} for group in state["param_groups"]
    ]
    with new_folder(folder / f"step-{step:08d}") as pending:
        save_tensors(tensors, pending / STATE_NAME)
        write_json(pending / STEP_NAME, {"step": step, "optimizer_groups": json.loads(json.dumps(groups))})
    for old in _checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)


def load_checkpoint(
    folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> int:
    """Restore the newest checkpoint in ``folder``; returns its step, 0 where there is none.

    Raises:
        InputError: The checkpoint is damaged or is of another model.
    """
    found = _checkpoints(folder)
    if not found:
        return 0
    path = found[-1]
    content = read_json(path / STEP_NAME)
    tensors = load_tensors(path / STATE_NAME)
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict(
            {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        )
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, number, field = key.split("/")
            state.setdefault(int(number), {})[field] = value
    now = optimizer.state_dict()["param_groups"]
    groups = [
        {**group, "lr": current["lr"]}
        for group, current in zip(content["optimizer_groups"], now, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    _restore_random_state(tensors["random_states"][accelerator.process_index], accelerator.device)
    return int(content["step"])


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _random_state(device: torch.device) -> Tensor:
    state = torch.get_rng_state()
    return torch.cat([state, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else state


def _restore_random_state(state: Tensor, device: torch.device) -> None:
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size])
    if device.type == "cuda" and len(state) > size:
        torch.cuda.set_rng_state(state[size:], device)
