"""Run folders: the configuration, the metrics, the images and the checkpoints of one training run."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from PIL import Image

from rasterwise.data.sources.state import Origin
from rasterwise.errors import InputError
from rasterwise.files import (
    FolderLock,
    clear_leftovers,
    clear_locked,
    empty_folder,
    from_json,
    is_vacant,
    member,
    read_json,
    write_json,
)
from rasterwise.images import save_image
from rasterwise.outputs import claim_folder
from rasterwise.training.run.metrics_log import METRICS_NAME, append_metrics, rewind_metrics

if TYPE_CHECKING:
    from rasterwise.training.run.events import Events

RUN_NAME = "run.json"
REPORT_NAME = "report.json"
DATA_NAME = "data.json"

NO_CONFIGURATION = ("output", "force", "json", "resume", "dry_run")
"""Options of a command that are no part of a run's configuration."""

MAY_DIFFER = ("data.workers", "data.skip_broken")
"""Options that may change when a run is resumed: how its data are read, not what they are."""
MAY_MOVE = ("data.dataset", "data.revision")
"""Options that may change too where the data are compared file by file: where they are."""

Options = TypeVar("Options")


class RunFolder:
    """One run's folder, which no other process may write while this one lives.

    It holds ``run.json`` (the resolved configuration), ``data.json`` (the state of its data), ``metrics.jsonl``,
    TensorBoard events, ``images/``, ``checkpoints/``, ``model/`` (a model folder: the last weights that were saved),
    ``model-best/`` (those of the best evaluation) and, once the run has ended, ``report.json``.

    A run is claimed first, which changes nothing in the folder, and begun when nothing is left that could refuse
    it. As a context manager, a run that was not begun leaves no trace.

    Args:
        path: The folder, which exists.
        main: Whether this is the main process; the other ones write nothing.
    """

    def __init__(self, path: Path, *, main: bool = True) -> None:
        self.path = path
        self.main = main
        self._events: Events | None = None
        self._lock: FolderLock | None = None
        self._content: dict[str, Any] | None = None
        self._data: Origin | None = None
        self._replaces = False

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
        """Lock a folder for a new run, or for the run that it holds and that goes on.

        Args:
            path: The folder; created if it is absent.
            command: The name of the command.
            config: The command's resolved configuration, a dataclass.
            data: Where its images came from. A run that is resumed must have had the same, file by file. Digests of
                what was read are compared where both runs read all of a file; else its size and time of change.
            force: Start anew, and delete the run that is there once the new one begins.
            main: Whether this is the main process; the other ones write nothing.

        Raises:
            InputError: The folder holds something else, a run with another configuration or other data, or one that
                another process is training; or it lies in the folder of the data.
        """
        if data is not None:
            data.refuse_output(path)
        claimed = claim_folder(path)
        run = cls(path, main=main)
        run._replaces = force
        if not main:
            return run
        if path.exists() and not (path / RUN_NAME).exists() and not is_vacant(path):
            raise InputError(
                f"output folder {path} is not empty and holds no run; name another with --output"
            )
        run._lock = FolderLock.take(path)
        clear_leftovers(claimed.parent, glob.escape(claimed.name))
        clear_locked(path)
        run._content, run._data = {"command": command, "config": configuration(config)}, data
        if (path / RUN_NAME).exists() and not force:
            before = _read_run(path)
            _complete(before["config"], run._content["config"], config)
            _check_same(path, before, run._content)
            _check_data(path, data)
        return run

    def begin(self) -> None:
        """Write down what the run is, or delete the run whose place it takes and do so; all processes call this."""
        if self._content is not None:
            if self._replaces:
                empty_folder(self.path, first=REPORT_NAME, last=RUN_NAME)
            write_json(self.path / RUN_NAME, self._content, checksum=True)
            if self._data is not None and not (self.path / DATA_NAME).exists():
                write_json(self.path / DATA_NAME, self._data.as_json(), checksum=True)
        self._content, self._replaces = None, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.close()
        if self._lock is not None and not (self.path / RUN_NAME).exists():
            self._lock.release()

    @property
    def report(self) -> dict[str, Any] | None:
        """The report of a run that has ended; None before, and where another takes its place."""
        if self._replaces:
            return None
        return read_json(self.path / REPORT_NAME) if (self.path / REPORT_NAME).exists() else None

    def finish(self, report: dict[str, Any]) -> None:
        """Write the report, with which the run has ended."""
        if self.main:
            self._check()
            write_json(self.path / REPORT_NAME, report, checksum=True)

    def rewind(self, step: int) -> None:
        """Remove the metrics after a step, which a resumed run writes again."""
        if not self.main:
            return
        rewind_metrics(self.path / METRICS_NAME, step)
        self.close()
        self._opened_events(purge_step=step + 1)

    def log(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Append metrics of a split ("train", "test") to metrics.jsonl and TensorBoard."""
        if not self.main:
            return
        self._check()
        append_metrics(self.path / METRICS_NAME, step, split, metrics)
        self._opened_events().scalars(step, split, metrics)

    def sync_metrics(self) -> None:
        """Flush the metrics to the disk, before the checkpoint that follows them."""
        if not self.main:
            return
        self._check()
        path = self.path / METRICS_NAME
        if path.exists():
            with path.open("a") as file:
                os.fsync(file.fileno())

    def image(self, step: int, name: str, image: Image.Image) -> None:
        """Save a sample image as ``images/<name>-<step>.png`` and to TensorBoard."""
        if not self.main:
            return
        self._check()
        save_image(image, self.path / "images" / f"{name}-{step:07d}.png")
        self._opened_events().image(step, name, image)

    def close(self) -> None:
        """Close the TensorBoard events."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _check(self) -> None:
        """Raise an InputError if the folder is no longer there; what is written would make half of one."""
        if self._lock is not None:
            self._lock.check()

    def _opened_events(self, purge_step: int | None = None) -> Events:
        if self._events is None:
            from rasterwise.training.run.events import Events

            self._events = Events(self.path, purge_step)
        return self._events


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
