"""Checkpoints of a training run: everything that a run needs to resume, in safetensors and JSON only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from rasterwise.errors import InputError
from rasterwise.files import (
    LEFTOVER,
    MANIFEST_NAME,
    damage_of,
    load_tensors,
    new_folder,
    read_json,
    remove_folder,
    save_tensors,
    write_json,
    write_manifest,
)
from rasterwise.training.fsdp import sharded_like, whole

STATE_NAME = "state.safetensors"
STEP_NAME = "step.json"
CONTENT = {STATE_NAME, STEP_NAME}
FOUND_BEFORE = "found before the run was resumed"
"""Of a broken image."""
STEP_FOLDER = re.compile(r"step-\d{8,}")


@dataclass(frozen=True)
class Best:
    """The best weights of a run so far.

    Attributes:
        step: How many optimizer steps had been taken when they were evaluated.
        value: Their value of the objective's criterion, the lower the better.
    """

    step: int
    value: float


@dataclass(frozen=True)
class Start:
    """Where a run begins or resumes.

    Attributes:
        step: Optimizer steps done so far.
        best: The best weights so far; None before there are any.
    """

    step: int
    best: Best | None


class DamagedError(Exception):
    """A checkpoint is not what was saved; the message names the file."""


class Checkpoints:
    """The checkpoints of one run, ``folder/step-<step>``: the last ones and the best.

    Each holds ``state.safetensors`` (weights, averaged weights, optimizers, buffers such as a codebook and its
    statistics, every process's random state), ``step.json`` (the step, the optimizers' settings, the best
    step so far) and, written last, ``manifest.json`` with the SHA-256 of both. The order of the data is a function
    of the step, so it needs no state.

    Args:
        folder: The run's ``checkpoints``.
        modules: What to save by name: the objective (unwrapped), the averaged weights.
        optimizers: By name; their states are saved by the index of each parameter.
        accelerator: All processes save and load; each one's random state is kept.
        keep_last: How many are kept, besides the best.
        broken: The broken images that were left out so far, by split and index, which a resumed run still counts.
    """

    def __init__(
        self,
        folder: Path,
        modules: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        accelerator: Accelerator,
        keep_last: int = 2,
        broken: Mapping[str, dict[int, str]] = MappingProxyType({}),
    ) -> None:
        self.folder, self.modules, self.optimizers = folder, modules, optimizers
        self.accelerator, self.keep_last, self.broken = accelerator, keep_last, broken

    def save(self, step: int, best: Best | None) -> None:
        """Save the run's state, whole or not at all, and delete what is not kept; all processes call this.

        Args:
            step: After how many optimizer steps.
            best: The best weights so far, whose checkpoint is kept.
        """
        device = self.accelerator.device
        random_states = self.accelerator.gather(_random_state(device)[None].to(device)).cpu()
        states = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        tensors: dict[str, Tensor] = {"random_states": random_states}
        for name, value in self._tensors(states):
            value = whole(value)
            if self.accelerator.is_main_process:  # off the device at once: whole, all of it may not fit there
                tensors[name] = value.cpu()
        broken = {name: _of_all_processes(found, self.accelerator) for name, found in self.broken.items()}
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        content = {
            "step": step,
            "best": asdict(best) if best else None,
            **{f"{name}_groups": _without_rates(state["param_groups"]) for name, state in states.items()},
            "scaler": scaler.state_dict() if scaler else None,
            "broken": broken,
        }
        with new_folder(self.folder / f"step-{step:08d}") as pending:
            save_tensors(tensors, pending / STATE_NAME)
            write_json(pending / STEP_NAME, content)
            write_manifest(pending, CONTENT)
        self._thin_out(step, best)

    def _tensors(self, optimizer_states: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Tensor]]:
        for name, module in self.modules.items():
            for key, value in module.state_dict().items():
                yield f"{name}/{key}", value
        for name, state in optimizer_states.items():
            for index, values in state["state"].items():
                for key, value in values.items():
                    yield f"{name}/{index}/{key}", torch.as_tensor(value)

    def load(self, report: Callable[[str], None]) -> Start:
        """Restore the newest whole checkpoint; returns where it goes on, step 0 where there is none.

        Args:
            report: Shows a line; one names each damaged checkpoint that is passed over.

        Raises:
            InputError: The folder holds a file that no checkpoint has, no checkpoint is whole, or the newest one
                is of another model.
        """
        _refuse_strangers(self.folder)
        damages: list[str] = []
        for path in reversed(_found(self.folder)):
            try:
                content, tensors = _read(path)
            except DamagedError as damage:
                damages.append(f"{path.name}: {damage}")
                report(f"checkpoint {path} is passed over: {damage}")
                continue
            try:
                start = self._restore(content, tensors, report)
            except (RuntimeError, KeyError, TypeError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise InputError(f"checkpoint {path} does not fit the run's model: {reason}") from None
            self.accelerator.wait_for_everyone()  # others may still be reading those before it
            if not damages and self.accelerator.is_main_process:
                self._thin_out(start.step, start.best)  # a kill may have come between saving and this
            return start
        if damages:
            raise InputError(
                f"no checkpoint in {self.folder} is whole ({'; '.join(damages)}); restore one from a copy, "
                "or start anew with --force"
            )
        return Start(0, None)

    def _restore(
        self, content: dict[str, Any], tensors: dict[str, Tensor], report: Callable[[str], None]
    ) -> Start:
        names = {key.partition("/")[0] for key in tensors} - {"random_states"}
        if unknown := names - self.modules.keys() - self.optimizers.keys():
            raise ValueError(f"it has no {min(unknown)}")
        for name, module in self.modules.items():
            own, saved = module.state_dict(), _named(tensors, name)
            module.load_state_dict({k: sharded_like(value, own.get(k, value)) for k, value in saved.items()})
        for name, optimizer in self.optimizers.items():
            _restore_optimizer(optimizer, content[f"{name}_groups"], _named(tensors, name))
        if self.accelerator.scaler and content["scaler"]:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        states, processes = tensors["random_states"], self.accelerator.num_processes
        if len(states) == processes:
            _restore_random_state(states[self.accelerator.process_index], self.accelerator.device)
        else:  # resuming bit for bit takes the same number of processes
            report(
                f"the run had {len(states)} processes and now has {processes}: its random draws will differ"
            )
        for name, found in self.broken.items():
            found.update((index, FOUND_BEFORE) for index in content.get("broken", {}).get(name, ()))
        return Start(int(content["step"]), Best(**content["best"]) if content["best"] else None)

    def _thin_out(self, step: int, best: Best | None) -> None:
        """Delete all but the best and the last ones up to a step; any later one was damaged and passed over."""
        steps = {int(path.name.removeprefix("step-")): path for path in _found(self.folder)}
        kept = set(sorted(saved for saved in steps if saved <= step)[-self.keep_last :])
        if best:
            kept.add(best.step)
        for saved in steps.keys() - kept:
            remove_folder(steps[saved])


def _of_all_processes(found: dict[int, str], accelerator: Accelerator) -> list[int]:
    """The indices that any process has found."""
    if accelerator.num_processes == 1:
        return sorted(found)
    return sorted(set(gather_object(list(found))))


def _without_rates(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An optimizer's settings; the learning rate is a function of the step."""
    return [{key: value for key, value in group.items() if key != "lr"} for group in groups]


def _named(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors under a name, without it."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], tensors: dict[str, Tensor]
) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, field = key.partition("/")
        state.setdefault(int(index), {})[field] = sharded_like(value, parameters[int(index)])
    now = optimizer.state_dict()["param_groups"]
    groups = [{**group, "lr": current["lr"]} for group, current in zip(groups, now, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint's content, every byte of it checked."""
    if damage := damage_of(path, CONTENT):
        raise DamagedError(damage)
    try:
        return read_json(path / STEP_NAME), load_tensors(path / STATE_NAME)
    except InputError as error:  # intact, but not written by this program
        raise DamagedError(str(error)) from None


def _found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if STEP_FOLDER.fullmatch(path.name))


def _refuse_strangers(folder: Path) -> None:
    """Raise an InputError if the folder holds a file that no checkpoint has, such as a pickle."""
    for path in folder.rglob("*"):
        inside = STEP_FOLDER.fullmatch(path.parent.name) and path.name in CONTENT | {MANIFEST_NAME}
        written = any(LEFTOVER.fullmatch(part) for part in path.relative_to(folder).parts)  # never read
        if not (inside or written or (path.is_dir() and STEP_FOLDER.fullmatch(path.name))):
            raise InputError(
                f"{path} is no part of a checkpoint, which is safetensors and JSON only; nothing was read. "
                "Remove it if you know where it came from"
            )


def _random_state(device: torch.device) -> Tensor:
    state = torch.get_rng_state()
    return torch.cat([state, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else state


def _restore_random_state(state: Tensor, device: torch.device) -> None:
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size].clone())  # torch reads a view from the beginning of its storage
    if device.type == "cuda" and len(state) > size:
        torch.cuda.set_rng_state(state[size:].clone(), device)
