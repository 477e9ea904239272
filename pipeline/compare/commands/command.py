"""What the comparison commands share: checks before anything is trained, presets, and the run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.compare.measurement.cell import FAILED
from pipeline.compare.measurement.comparison import compare
from pipeline.compare.plan.families import check_cell
from pipeline.compare.plan.settings import Cell, Settings
from pipeline.compare.report.page import publish
from rasterwise.command_line.run import USER_ERROR, run_command, split_word
from rasterwise.command_line.statuses import FAILED as FAILED_STATUS
from rasterwise.data.dataset import open_images
from rasterwise.errors import InputError, UnfinishedError
from rasterwise.measure.figures import require_matplotlib
from rasterwise.outputs import claim_folder
from rasterwise.progress import Progress

Options = TypeVar("Options")


def open_and_check(cells: Sequence[Cell], settings: Settings) -> None:
    """Check settings, images, models and resolutions before anything is trained; InputError for what cannot be."""
    settings.check()
    if not settings.data.dataset:
        raise InputError("this preset takes its images from --dataset; name a folder or a Hugging Face id")
    if settings.data.size is not None:
        raise InputError(
            f"size is {settings.data.size}, but a comparison's resolutions say how large images are; leave it out"
        )
    if not cells:
        raise InputError("no cells were asked for, expected at least one model at one resolution and size")
    smallest = min(cell.resolution for cell in cells)
    if smallest < 2:
        raise InputError(f"resolution is {smallest}, expected 2 or more")
    with Progress("reading images", "image") as progress:
        channels = open_images(replace(settings.data, size=smallest), progress).shape[0]
    for cell in cells:
        check_cell(cell, channels)


class ComparisonOptions(Protocol):
    """The options that every comparison has."""

    @property
    def settings(self) -> Settings: ...

    @property
    def output(self) -> Path: ...

    @property
    def retry(self) -> bool: ...

    @property
    def force(self) -> bool: ...


def run_cells(kind: str, cells: Sequence[Cell], options: ComparisonOptions, command: str) -> dict[str, Any]:
    """Check what is asked for, and compare; returns the report.

    Args:
        kind: "resolution", "size" or "family".
        cells: What is compared.
        options: Of the command.
        command: The command line, which the page shows.
    """
    claim_folder(options.output)
    require_matplotlib()
    open_and_check(cells, options.settings)
    report = compare(
        kind,
        cells,
        options.settings,
        options.output,
        publish,
        command=command,
        force=options.force,
        retry=options.retry,
    )
    if FAILED in report["not_done"].values():
        raise UnfinishedError(report, FAILED_STATUS)
    return report


def comparison_main(
    work: Callable[..., dict[str, Any]],
    options_class: type[Options],
    presets: dict[str, Options],
    arguments: Sequence[str] | None,
    program: str,
) -> int:
    """Run a comparison's command, from a preset where one is named; returns the exit status.

    Args:
        work: Called with the options and ``command``, the command line.
        options_class: The command's options.
        presets: Its presets by name.
        arguments: By default the process's.
        program: The command's name.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name, rest = split_word(words, "--preset")
    if name is not None and name not in presets:
        print(f"rasterwise: --preset is {name!r}, expected one of {', '.join(presets)}", file=sys.stderr)
        return USER_ERROR
    shown = f"{program} [--preset {{{','.join(presets)}}}]"
    command = partial(work, command=" ".join([program, *words]))
    return run_command(command, options_class, rest, shown, default=presets[name] if name else None)
