"""A benchmark's file: facts about the machine and a cell for each measurement, updated after every one."""

from __future__ import annotations

import dataclasses
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from rasterwise.command_line.run import run_command
from rasterwise.errors import InputError
from rasterwise.files import write_json
from rasterwise.measure.machine import machine_facts
from rasterwise.progress import Progress

Options = TypeVar("Options")

Cell = dict[str, Any]
"""One measurement: what was measured, and its figures, or ``error`` instead of them if it failed."""


class BenchmarkFile:
    """Measures the cells of a benchmark, and writes each one to disk.

    Args:
        path: The JSON file.
        benchmark: The benchmark's name.
        options: Its options.
        device: The device that it runs on.
        force: Whether an existing file may be replaced.

    Raises:
        InputError: The file exists already.
    """

    def __init__(self, path: Path, benchmark: str, options: Any, device: torch.device, force: bool) -> None:
        if path.exists() and not force:
            raise InputError(f"{path} is there already; give another --output, or --force to replace it")
        self.path = path
        self.cells: list[Cell] = []
        self.content: dict[str, Any] = {
            "benchmark": benchmark,
            "complete": False,
            "machine": machine_facts(device),
            "options": {name: _as_json(value) for name, value in dataclasses.asdict(options).items()},
            "cells": self.cells,
        }
        write_json(path, self.content)

    def run(self, planned: Sequence[tuple[Cell, Callable[[], Cell]]]) -> None:
        """Measure every cell; one that fails is recorded with its error, and the next ones follow.

        Args:
            planned: For each cell, what is measured (with a ``label``) and the function that measures it.
        """
        benchmark = self.content["benchmark"]
        with Progress(benchmark, "cell") as progress:
            for number, (subject, measure) in enumerate(planned, 1):
                said = ", ".join(str(value) for value in subject.values() if not isinstance(value, dict))
                progress.line(f"{benchmark} {number}/{len(planned)}: {said}")
                load = os.getloadavg()[0]
                try:
                    cell = measure()
                except Exception as error:  # one that runs out of memory, say, must not end the others
                    progress.line(traceback.format_exc())
                    cell = {"error": f"{type(error).__name__}: {error}"}
                self.cells.append({**subject, "load_average_1_minute_before": load, **cell})
                self.content["complete"] = number == len(planned)
                write_json(self.path, self.content)
                progress(number, len(planned))

    def report(self, table: Callable[[Sequence[Cell]], str], *, as_json: bool) -> dict[str, Any]:
        """Print the table and return the command's report; as JSON, return all that the file holds."""
        failed = [cell["label"] for cell in self.cells if "error" in cell]
        if as_json:
            return {**self.content, "failed": failed}
        print(table(self.cells), end="\n\n")
        return {"output": str(self.path), "cells": len(self.cells), "failed": failed}


def command_status(
    benchmark: Callable[[Options], dict[str, Any]],
    options_class: type[Options],
    arguments: Sequence[str] | None,
    program: str | None,
) -> int:
    """Run a benchmark's command; returns its exit status, 1 if a cell failed."""
    failed: list[str] = []

    def command(options: Options) -> dict[str, Any]:
        report = benchmark(options)
        failed.extend(report["failed"])
        return report

    return run_command(command, options_class, arguments, program) or int(bool(failed))


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with its figures aligned to the right and rounded to three digits.

    Example:
        >>> print(markdown_table(["model", "seconds"], [["PixelCNN", 1.23456], ["RowLSTM", None]]))
        | model | seconds |
        |---|---:|
        | PixelCNN | 1.23 |
        | RowLSTM | – |
    """
    lines = [[str(head) for head in heads], ["---"] + ["---:"] * (len(heads) - 1)]
    lines += [[_shown(value) for value in row] for row in rows]
    rule = "|" + "|".join(lines.pop(1)) + "|"
    shown = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([shown[0], rule, *shown[1:]])


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
