"""A comparison from its cells to its page: cells not yet done are done, and all is written after each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.compare.measurement.cell import (
    DONE,
    FAILED,
    OUT_OF_MEMORY,
    RESULT_NAME,
    STOPPED,
    Figures,
    Instruments,
    measure_cell,
)
from pipeline.compare.plan.families import FAMILIES
from pipeline.compare.plan.settings import Cell, Settings
from rasterwise.errors import is_out_of_memory
from rasterwise.files import member, read_json, remove_folder, write_json
from rasterwise.measure.machine import machine_facts
from rasterwise.measure.timing import chosen_device, in_fresh_process
from rasterwise.progress import Progress
from rasterwise.training.run.run_folder import RunFolder

CELLS = "cells"
CLASSIFIER_NAME = "classifier.safetensors"
NOT_YET = "not yet"


@dataclass(frozen=True)
class Row:
    """A cell with what is known of it.

    Attributes:
        cell: Which.
        figures: Its ``status`` and, once it is done, its figures.
        folder: Where its images are.
    """

    cell: Cell
    figures: Figures
    folder: Path

    @property
    def done(self) -> bool:
        """Whether it has figures."""
        return self.figures["status"] == DONE


@dataclass(frozen=True)
class Comparison:
    """All that the page shows.

    Attributes:
        kind: "resolution", "size" or "family".
        settings: Of all cells.
        rows: Of all cells, in order.
        machine: Facts of the machine and the date.
        command: What was typed.
    """

    kind: str
    settings: Settings
    rows: tuple[Row, ...]
    machine: dict[str, Any]
    command: str

    @property
    def finished(self) -> tuple[Row, ...]:
        """The rows that have figures."""
        return tuple(row for row in self.rows if row.done)


Publish = Callable[[Comparison, Path], None]
"""Writes the page and the files beside it from what is there."""


def compare(
    kind: str,
    cells: Sequence[Cell],
    settings: Settings,
    output: Path,
    publish: Publish,
    *,
    command: str = "",
    force: bool = False,
    retry: bool = False,
) -> dict[str, Any]:
    """Run what a comparison lacks; returns its report.

    Cells that an earlier command with the same settings did in the folder are kept and shown too.

    Args:
        kind: Which comparison.
        cells: That are wanted.
        settings: That all cells share.
        output: The folder; claimed by kind and settings.
        publish: Called at the beginning and after each cell.
        command: What was typed, for the page.
        force: Delete the comparison that is in the folder.
        retry: Do cells again that failed or did not fit.
    """
    run = RunFolder.claim(output, f"compare {kind}", settings, force=force)  # locked while it is held
    run.begin()
    instruments = Instruments(kind == "family", kind == "family", (output / CLASSIFIER_NAME).absolute())
    earlier = [Cell.named(path.parent.name) for path in sorted((output / CELLS).glob(f"*/{RESULT_NAME}"))]
    wanted = list(dict.fromkeys([*cells, *earlier]))
    families = list(FAMILIES)
    wanted.sort(
        key=lambda cell: (families.index(cell.family), cell.resolution, cell.size.width, cell.size.depth)
    )
    machine = machine_facts(chosen_device(settings.device))
    lacking = [cell for cell in cells if _lacks(_folder(output, cell), retry)]
    clock = _Clock(len(lacking))

    def publish_now() -> Comparison:
        rows = tuple(Row(cell, _figures(_folder(output, cell)), _folder(output, cell)) for cell in wanted)
        comparison = Comparison(kind, settings, rows, machine, command)
        publish(comparison, output)
        return comparison

    comparison = publish_now()
    with Progress(f"compare {kind}", "cell") as progress:
        for number, cell in enumerate(lacking, 1):
            progress.line(
                f"compare {kind}: cell {number} of {len(lacking)}, {cell.name}; {clock.left(number)}"
            )
            folder = _folder(output, cell)
            if retry and (folder / RESULT_NAME).exists():
                remove_folder(folder)
            figures = run_cell(cell, settings, folder, instruments)
            if figures["status"] == STOPPED:
                raise KeyboardInterrupt
            if figures["status"] != DONE:
                progress.line(f"{cell.name} {figures['status']}: {figures.get('reason')}")
            comparison = publish_now()
            progress(number, len(lacking))
    report = {
        "page": str(output / "index.html"),
        "output": str(output),
        "cells": len(comparison.rows),
        "done": len(comparison.finished),
        "not_done": {row.cell.name: row.figures["status"] for row in comparison.rows if not row.done},
    }
    run.finish(report)
    return report


def run_cell(cell: Cell, settings: Settings, folder: Path, instruments: Instruments) -> Figures:
    """A cell in a process of its own: its peak memory is its own, and the end of it is its own."""
    try:
        return in_fresh_process(settings.threads, measure_cell, cell, settings, folder, instruments)
    except BrokenProcessPool:
        figures = {
            "status": OUT_OF_MEMORY,
            "reason": "the system ended its process, for want of memory most likely",
        }
    except Exception as error:  # the process had too little memory left to say so itself, for one
        status = OUT_OF_MEMORY if is_out_of_memory(error) else FAILED
        figures = {"status": status, "reason": f"{type(error).__name__}: {error}".splitlines()[0]}
    write_json(folder / RESULT_NAME, figures)
    return figures


def _folder(output: Path, cell: Cell) -> Path:
    return output / CELLS / cell.name


def _figures(folder: Path) -> Figures:
    path = folder / RESULT_NAME
    if not path.exists():
        return {"status": NOT_YET}
    figures = read_json(path)
    member(figures, "status", str, path)
    return figures


def _lacks(folder: Path, retry: bool) -> bool:
    status = _figures(folder)["status"]
    return status == NOT_YET or (retry and status != DONE)


class _Clock:
    """How long cells take, so as to say how long is left."""

    def __init__(self, cells: int) -> None:
        self.cells, self.began = cells, time.monotonic()

    def left(self, number: int) -> str:
        """In words, before a cell of a number begins; from the mean of those before it."""
        if number == 1:
            return "how long is left shows after the first"
        seconds = (time.monotonic() - self.began) / (number - 1) * (self.cells - number + 1)
        return f"about {timedelta(seconds=round(seconds))} left"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs."""
    return {
        "kind": comparison.kind,
        "command": comparison.command,
        "settings": dataclasses.asdict(comparison.settings),
        "machine": comparison.machine,
        "cells": [
            {"name": row.cell.name, **dataclasses.asdict(row.cell), **row.figures} for row in comparison.rows
        ],
    }
