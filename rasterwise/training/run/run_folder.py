"""Run folders: the resolved configuration, the metrics, the images and the checkpoints of one training run."""

from __future__ import annotations

import dataclasses
import errno
import glob
import json
import os
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from PIL import Image

from rasterwise.errors import InputError
from rasterwise.files import clear_leftovers, from_json, new_file, read_json, remove_folder, write_json
from rasterwise.images import save_image

RUN_NAME = "run.json"
REPORT_NAME = "report.json"
METRICS_NAME = "metrics.jsonl"
LOCK_NAME = ".lock"

NO_CONFIGURATION = ("output", "force", "json", "resume", "dry_run")
"""Options that say how a command is run, not what the run is."""

MAY_DIFFER = ("data.workers", "data.skip_broken")
"""Options that a run may go on with otherwise: how its data are read, not what they are."""

Options = TypeVar("Options")


class RunFolder:
    """One run's folder.

    It holds ``run.json`` (the resolved configuration), ``metrics.jsonl``, TensorBoard events, ``images/``,
    ``checkpoints/``, ``model/`` (a model folder: the last weights that were saved), ``model-best/`` (those of the
    best evaluation) and, once the run has ended, ``report.json``.

    Args:
        path: The folder, which exists.
        main: False in all processes but one: they read, and write nothing.
    """

    def __init__(self, path: Path, *, main: bool = True) -> None:
        self.path = path
        self.main = main
        self._events: Any = None
        self._lock: IO[str] | None = None

    @classmethod
    def claim(cls, path: Path, command: str, config: Any, *, force: bool = False, main: bool = True) -> Self:
        """Take a folder for a run, or go on with the run that is there.

        What a killed process left half-written in it is removed.

        Args:
            path: The folder; made if it is absent.
            command: Which command's run it is.
            config: The command's resolved configuration, a dataclass.
            force: Delete the run that is there and start anew.
            main: False in all processes but one.

        Raises:
            InputError: The folder holds something else, a run with another configuration, or one that another
                process is training.
        """
        content: dict[str, Any] = {"command": command, "config": configuration(config)}
        if path.exists() and not path.is_dir():
            raise InputError(f"output {path} is a file, expected a folder or a new name")
        if not main:
            return cls(path, main=False)
        lock = _lock(path) if (path / RUN_NAME).exists() else None
        clear_leftovers(path.parent, glob.escape(path.name))
        for folder in (path, path / "checkpoints"):
            clear_leftovers(folder)
        if path.is_dir() and any(path.iterdir()):
            if not (path / RUN_NAME).exists():
                raise InputError(
                    f"output folder {path} is not empty and holds no run; name another with --output"
                )
            if force:
                remove_folder(path)
                lock = None
            else:
                before = read_json(path / RUN_NAME)
                _complete(before.get("config", {}), content["config"], config)
                _check_same(path, before, content)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run._lock = lock or _lock(path)
        write_json(path / RUN_NAME, content)
        return run

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
            with new_file(path) as pending:
                pending.write_text("".join(lines), encoding="utf-8")
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

    def sync_metrics(self) -> None:
        """Have the metrics on the disk, before the checkpoint that stands behind them."""
        path = self.path / METRICS_NAME
        if self.main and path.exists():
            with path.open("a") as file:
                os.fsync(file.fileno())

    def image(self, step: int, name: str, image: Image.Image) -> None:
        """Save a sample image as ``images/<name>-<step>.png`` and to TensorBoard."""
        if not self.main:
            return
        save_image(image, self.path / "images" / f"{name}-{step:07d}.png")
        if self._events is None:
            self._open_events(purge_step=None)
        import numpy as np

        self._events.add_image(name, np.array(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the TensorBoard events."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _open_events(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        self._events = SummaryWriter(str(self.path), purge_step=purge_step)


def read_command(path: Path) -> str:
    """Which command's run is in a folder; InputError where none is."""
    if not (path / RUN_NAME).exists():
        raise InputError(f"{path} holds no run to go on with, which would have a {RUN_NAME}")
    return str(read_json(path / RUN_NAME).get("command"))


def read_options(path: Path, command: str, options_class: type[Options]) -> Options:
    """The options of the run in a folder: its configuration, to go on with in that folder.

    Args:
        path: The run's folder.
        command: Which command's run it must be.
        options_class: That command's options, a dataclass with the fields ``output`` and ``resume``.

    Raises:
        InputError: The folder holds no run, one of another command, or one that this version cannot read.
    """
    found = read_command(path)
    if found != command:
        raise InputError(f"{path} holds a run of {found!r}, which {command!r} cannot go on with")
    content = read_json(path / RUN_NAME).get("config", {})
    options: Options = from_json(options_class, {**content, "output": path, "resume": path}, path / RUN_NAME)
    return options


def refuse_contradiction(before: Any, now: Any) -> None:
    """InputError where the options now, typed flags included, are not those of the run that is resumed."""
    names = ("json", "dry_run")
    found = _difference(configuration(before, names), configuration(now, names))
    if found:
        name, old, new = found
        flag = "--" + name.rpartition(".")[2].replace("_", "-")
        raise InputError(
            f"{flag} is {new}, but the run in {before.output} has {old}; a resumed run keeps its configuration: "
            f"leave {flag} out"
        )


def _lock(path: Path) -> IO[str] | None:
    """Keep other processes out of a run's folder until this one ends, in whatever way it does."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    file = (path / LOCK_NAME).open("a")
    try:
        fcntl.lockf(
            file, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # of the process: data loading's forks do not inherit it
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InputError(
                f"another process is training in {path}; stop it first, or name another folder with --output"
            ) from None
        # The file system knows no locks.
    return file


def configuration(options: Any, without: tuple[str, ...] = NO_CONFIGURATION) -> dict[str, Any]:
    """A command's options as JSON-like values, without those that say how it is run."""
    content = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    return {name: value for name, value in content.items() if name not in without}


def _complete(before: dict[str, Any], now: dict[str, Any], config: Any) -> None:
    """Give the configuration of a run that an earlier version started the options that it did not have yet."""
    for option in dataclasses.fields(config):
        name = option.name
        if name in now and name not in before and option.default is not dataclasses.MISSING:
            before[name] = json.loads(json.dumps(option.default, default=str))
        elif isinstance(before.get(name), dict) and dataclasses.is_dataclass(getattr(config, name)):
            _complete(before[name], now[name], getattr(config, name))


def _check_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    if before.get("command") != now["command"]:
        raise InputError(
            f"output folder {path} holds a run of {before.get('command')!r}; name another with --output, "
            "or delete that run with --force"
        )
    found = _difference(before.get("config", {}), now["config"])
    if found:
        name, old, new = found
        raise InputError(
            f"output folder {path} holds a run with {name} = {old}, not {new}; "
            "name another with --output, or delete that run with --force"
        )


def _difference(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first name that has another value and may not, with both values."""
    old, new = _flat(before), _flat(now)
    for name in sorted((old.keys() | new.keys()) - set(MAY_DIFFER)):
        if old.get(name) != new.get(name):
            return name, old.get(name), new.get(name)
    return None


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
