"""Run folders: the resolved configuration, the metrics, the pictures and the checkpoints of one training run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from rasterwise.errors import InputError
from rasterwise.files import read_json, write_json
from rasterwise.images import save_picture

RUN_NAME = "run.json"
REPORT_NAME = "report.json"
METRICS_NAME = "metrics.jsonl"


class RunFolder:
    """One run's folder.

    It holds ``run.json`` (the resolved configuration), ``metrics.jsonl``, TensorBoard events, ``pictures/``,
    ``checkpoints/``, ``model/`` (a model folder) and, once the run has ended, ``report.json``.

    Args:
        path: The folder, which exists.
        main: False in all processes but one: they read, and write nothing.
    """

    def __init__(self, path: Path, *, main: bool = True) -> None:
        self.path = path
        self.main = main
        self._events: Any = None

    @classmethod
    def claim(cls, path: Path, command: str, config: Any, *, force: bool = False, main: bool = True) -> Self:
        """Take a folder for a run, or go on with the run that is there.

        Args:
            path: The folder; made if it is absent.
            command: Which command's run it is.
            config: The command's resolved configuration, a dataclass.
            force: Delete the run that is there and start anew.
            main: False in all processes but one.

        Raises:
            InputError: The folder holds something else, or a run with another configuration.
        """
        content = {"command": command, "config": _plain(config)}
        if path.exists() and not path.is_dir():
            raise InputError(f"output {path} is a file, expected a folder or a new name")
        if not main:
            return cls(path, main=False)
        if path.is_dir() and any(path.iterdir()):
            if not (path / RUN_NAME).exists():
                raise InputError(
                    f"output folder {path} is not empty and holds no run; name another with --output"
                )
            if force:
                shutil.rmtree(path)
            else:
                _check_same(path, read_json(path / RUN_NAME), content)
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / RUN_NAME, content)
        return cls(path)

    @property
    def report(self) -> dict[str, Any] | None:
        """The report of a run that has ended, else None."""
        return read_json(self.path / REPORT_NAME) if (self.path / REPORT_NAME).exists() else None

    def finish(self, report: dict[str, Any]) -> None:
        """Write the report: the run has ended."""
        if self.main:
            write_json(self.path / REPORT_NAME, report)

    def rewind(self, step: int) -> None:
        """Forget the metrics after a step, before a resumed run writes them again."""
        if not self.main:
            return
        path = self.path / METRICS_NAME
        if path.exists():
            lines = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        lines.append(line + "\n")
                except (json.JSONDecodeError, KeyError):  # cut short when the run was killed
                    continue
            pending = path.with_suffix(".pending")
            pending.write_text("".join(lines), encoding="utf-8")
            pending.replace(path)
        self._open_events(purge_step=step + 1)

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Append metrics of a split ("train", "test") to metrics.jsonl and TensorBoard."""
        if not self.main:
            return
        with (self.path / METRICS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **metrics}) + "\n")
        if self._events is None:
            self._open_events(purge_step=None)
        for name, value in metrics.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Save a sample picture as ``pictures/<name>-<step>.png`` and to TensorBoard."""
        if not self.main:
            return
        save_picture(picture, self.path / "pictures" / f"{name}-{step:07d}.png")
        if self._events is None:
            self._open_events(purge_step=None)
        import numpy as np

        self._events.add_image(name, np.array(picture.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the TensorBoard events."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _open_events(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        self._events = SummaryWriter(str(self.path), purge_step=purge_step)


def _plain(config: Any) -> dict[str, Any]:
    content = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return {name: value for name, value in content.items() if name not in ("output", "force", "json")}


def _check_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    if before.get("command") != now["command"]:
        raise InputError(
            f"output folder {path} holds a run of {before.get('command')!r}; name another with --output, "
            "or delete that run with --force"
        )
    old, new = _flat(before.get("config", {})), _flat(now["config"])
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise InputError(
                f"output folder {path} holds a run with {name} = {old.get(name)}, not {new.get(name)}; "
                "name another with --output, or delete that run with --force"
            )


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def device_name(device: torch.device) -> str:
    """What a figure was measured on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU cores"
