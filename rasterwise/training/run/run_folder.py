"""Run folders: the configuration, the metrics, the images and the checkpoints of one training run."""

from __future__ import annotations

import dataclasses
import errno
import glob
import json
import os
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from PIL import Image

from rasterwise.data.sources.state import Origin
from rasterwise.errors import InputError
from rasterwise.files import clear_leftovers, from_json, member, read_json, remove_folder, write_json
from rasterwise.images import save_image
from rasterwise.outputs import claim_folder
from rasterwise.training.run.metrics_log import METRICS_NAME, append_metrics, rewind_metrics

RUN_NAME = "run.json"
REPORT_NAME = "report.json"
DATA_NAME = "data.json"
LOCK_NAME = ".lock"

NO_CONFIGURATION = ("output", "force", "json", "resume", "dry_run")
"""Options of a command that are no part of a run's configuration."""

MAY_DIFFER = ("data.workers", "data.skip_broken")
"""Options that may change when a run is resumed: how its data are read, not what they are."""
MAY_MOVE = ("data.dataset", "data.revision")
"""Options that may change too where the data are compared file by file: where they are."""

Options = TypeVar("Options")


class RunFolder:
    """One run's folder.

    It holds ``run.json`` (the resolved configuration), ``data.json`` (the state of its data), ``metrics.jsonl``,
    TensorBoard events, ``images/``, ``checkpoints/``, ``model/`` (a model folder: the last weights that were saved),
    ``model-best/`` (those of the best evaluation) and, once the run has ended, ``report.json``.

    Args:
        path: The folder, which exists.
        main: Whether this is the main process; the other ones write nothing.
    """

    def __init__(self, path: Path, *, main: bool = True) -> None:
        self.path = path
        self.main = main
        self._events: Any = None
        self._lock: IO[str] | None = None

    @classmethod
    def claim(
        cls,
        path: Path,
        command: str,
        config: Any,
        *,
        data: Origin | None = None,
        force: bool = False,
        main: bool = True,
    ) -> Self:
        """Take a folder for a new run, or resume the run that it holds.

        Half-written files that a killed process left are removed.

        Args:
            path: The folder; created if it is absent.
            command: The name of the command.
            config: The command's resolved configuration, a dataclass.
            data: Where its images came from. A run that is resumed must have had the same, file by file. Digests of
                what was read are compared where both runs read all of a file; else its size and time of change.
            force: Delete the run that is there and start anew.
            main: Whether this is the main process; the other ones write nothing.

        Raises:
            InputError: The folder holds something else, a run with another configuration or other data, or one that
                another process is training; or it lies in the folder of the data.
        """
        if data is not None:
            data.refuse_output(path)
        content: dict[str, Any] = {"command": command, "config": configuration(config)}
        claim_folder(path)
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
                before = _read_run(path)
                _complete(before["config"], content["config"], config)
                _check_same(path, before, content)
                _check_data(path, data)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run._lock = lock or _lock(path)
        write_json(path / RUN_NAME, content, checksum=True)
        if data is not None and not (path / DATA_NAME).exists():
            write_json(path / DATA_NAME, data.as_json(), checksum=True)
        return run

    @property
    def report(self) -> dict[str, Any] | None:
        """The report of a run that has ended; None before."""
        return read_json(self.path / REPORT_NAME) if (self.path / REPORT_NAME).exists() else None

    def finish(self, report: dict[str, Any]) -> None:
        """Write the report, with which the run has ended."""
        if self.main:
            write_json(self.path / REPORT_NAME, report, checksum=True)

    def rewind(self, step: int) -> None:
        """Remove the metrics after a step, which a resumed run writes again."""
        if not self.main:
            return
        rewind_metrics(self.path / METRICS_NAME, step)
        self._open_events(purge_step=step + 1)

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Append metrics of a split ("train", "test") to metrics.jsonl and TensorBoard."""
        if not self.main:
            return
        append_metrics(self.path / METRICS_NAME, step, split, metrics)
        if self._events is None:
            self._open_events(purge_step=None)
        for name, value in metrics.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def sync_metrics(self) -> None:
        """Flush the metrics to the disk, before the checkpoint that follows them."""
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
    """The name of the command whose run a folder holds; an InputError if it holds none."""
    if not (path / RUN_NAME).exists():
        raise InputError(f"{path} holds no run to go on with, which would have a {RUN_NAME}")
    return str(_read_run(path)["command"])


def _read_run(path: Path) -> dict[str, Any]:
    """What run.json holds: the ``command``, and its ``config``."""
    content, where = read_json(path / RUN_NAME), path / RUN_NAME
    return {
        "command": member(content, "command", str, where),
        "config": member(content, "config", dict, where),
    }


def read_options(path: Path, command: str, options_class: type[Options]) -> Options:
    """The options with which the run in a folder is resumed: its own configuration.

    Args:
        path: The run's folder.
        command: The name of the command that the run must be of.
        options_class: That command's options, a dataclass with the fields ``output`` and ``resume``.

    Raises:
        InputError: The folder holds no run, one of another command, or one that this version cannot read.
    """
    found = read_command(path)
    if found != command:
        raise InputError(f"{path} holds a run of {found!r}, which {command!r} cannot go on with")
    content = _read_run(path)["config"]
    options: Options = from_json(options_class, {**content, "output": path, "resume": path}, path / RUN_NAME)
    return options


def refuse_contradiction(before: Any, now: Any) -> None:
    """Raise an InputError if an option, given as a flag, differs from that of the run that is resumed."""
    names = ("json", "dry_run")
    may_differ = _may_differ(before.output)
    found = _difference(configuration(before, names), configuration(now, names), may_differ)
    if found:
        name, old, new = found
        flag = "--" + name.rpartition(".")[2].replace("_", "-")
        raise InputError(
            f"{flag} is {new}, but the run in {before.output} has {old}; a resumed run keeps its configuration: "
            f"leave {flag} out"
        )


def _lock(path: Path) -> IO[str] | None:
    """Keep other processes out of a run's folder until this one ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    file = (path / LOCK_NAME).open("a")
    try:
        # lockf locks for the process: forked data workers do not inherit it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InputError(
                f"another process is training in {path}; stop it first, or name another folder with --output"
            ) from None
        # The file system has no locks.
    return file


def configuration(options: Any, without: tuple[str, ...] = NO_CONFIGURATION) -> dict[str, Any]:
    """A command's options as JSON-like values, without those that are no part of a run's configuration."""
    content = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    return {name: value for name, value in content.items() if name not in without}


def _complete(before: dict[str, Any], now: dict[str, Any], config: Any) -> None:
    """Add options to the configuration of a run that an earlier version, which did not have them, started."""
    for option in dataclasses.fields(config):
        name = option.name
        if name in now and name not in before and option.default is not dataclasses.MISSING:
            before[name] = json.loads(json.dumps(option.default, default=str))
        elif isinstance(before.get(name), dict) and dataclasses.is_dataclass(getattr(config, name)):
            _complete(before[name], now[name], getattr(config, name))


def _check_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    if before["command"] != now["command"]:
        raise InputError(
            f"output folder {path} holds a run of {before['command']!r}; name another with --output, "
            "or delete that run with --force"
        )
    found = _difference(before["config"], now["config"], _may_differ(path))
    if found:
        name, old, new = found
        raise InputError(
            f"output folder {path} holds a run with {name} = {old}, not {new}; "
            "name another with --output, or delete that run with --force"
        )


def _check_data(path: Path, data: Origin | None) -> None:
    if data is None or not (path / DATA_NAME).exists():  # an earlier version did not write it
        return
    before = read_json(path / DATA_NAME)
    try:
        changes = data.changes(before)
    except ValueError as error:
        raise InputError(f"{path / DATA_NAME} cannot be read ({error}); start anew with --force") from None
    if changes:
        raise InputError(
            f"the data of the run in {path} ({before['dataset']}) have changed: {changes}; bring them back, name "
            "another folder with --output, or start anew with --force"
        )


def _may_differ(path: Path) -> tuple[str, ...]:
    return MAY_DIFFER + (MAY_MOVE if (path / DATA_NAME).exists() else ())


def _difference(
    before: dict[str, Any], now: dict[str, Any], may_differ: tuple[str, ...]
) -> tuple[str, Any, Any] | None:
    """The first option that differs and may not, with both values; None if there is none."""
    old, new = _flat(before), _flat(now)
    for name in sorted((old.keys() | new.keys()) - set(may_differ)):
        if old.get(name) != new.get(name):
            return name, old.get(name), new.get(name)
    return None


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
