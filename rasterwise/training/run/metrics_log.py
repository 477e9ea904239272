"""``metrics.jsonl``: the metrics of a run as it goes, one JSON object a line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasterwise.errors import InputError
from rasterwise.files import as_json, member, new_file, parse_json, sealed

METRICS_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class Logged:
    """A line of the log.

    Attributes:
        step: Optimizer steps done.
        split: "train" or "test".
        metrics: Values by name.
        line: The line itself, without its end.
    """

    step: int
    split: str
    metrics: dict[str, float]
    line: str


def append_metrics(path: Path, step: int, split: str, metrics: dict[str, float]) -> None:
    """Append a line, with a checksum of itself."""
    content = sealed({"step": step, "split": split, **metrics})
    with path.open("a", encoding="utf-8") as file:
        file.write(as_json(content, indent=None) + "\n")


def read_metrics(path: Path) -> list[Logged]:
    """All lines of a log. A last line without an end is left out: it is being written, or a kill cut it short.

    Raises:
        InputError: There is no log, or a line is not what was written. The error names the line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(
            f"{path.parent} holds no {path.name} ({error.strerror}), expected a run's folder"
        ) from None
    return [_logged(line, f"{path}, line {number},") for number, line in enumerate(lines[:-1], 1)]


def rewind_metrics(path: Path, step: int) -> None:
    """Remove the lines after a step from a log, if there is one."""
    if path.exists():
        lines = [logged.line + "\n" for logged in read_metrics(path) if logged.step <= step]
        with new_file(path) as pending:
            pending.write_text("".join(lines), encoding="utf-8")


def _logged(line: bytes, where: str) -> Logged:
    try:
        text = line.decode("utf-8")
        content: dict[str, Any] = parse_json(text, where)
        step = member(content, "step", int, where)
        split = member(content, "split", str, where)
        metrics = {name: value for name, value in content.items() if name not in ("step", "split")}
        for name, value in metrics.items():
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise InputError(f"{where} has {name} = {value!r}, expected a number")
    except UnicodeDecodeError:
        raise InputError(f"{where} is damaged; delete that line to go on without it") from None
    except InputError as error:
        raise InputError(f"{error}; or delete that line to go on without it") from None
    return Logged(step, split, metrics, text)
