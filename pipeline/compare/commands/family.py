"""All families at one resolution and budget: ``rasterwise compare family``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from pipeline.compare.commands.command import comparison_main, run_cells
from pipeline.compare.plan.families import FAMILIES, family_named
from pipeline.compare.plan.presets import EMOJI, PHOTOS, QUICK
from pipeline.compare.plan.settings import Cell, Settings
from rasterwise.configuration import Pixels, configuration


@configuration()
class CompareFamily:
    """Train all families at one resolution under one budget.

    Where the dataset has classes, a classifier that was trained on the training images measures the mode coverage of
    unconditional samples, and ImageGPT gets the linear probe.

    Attributes:
        models: As for ``rasterwise compare resolution``.
        resolution: Pixels a side.
        settings: Of all cells.
        output: The comparison's folder.
        retry: Do failed cells again, and those that did not fit.
        force: Delete the comparison that is in the folder and start anew.
        json: Print the report as JSON.
    """

    models: tuple[str, ...] = tuple(FAMILIES)
    resolution: Pixels = 32
    settings: Settings = field(default_factory=Settings)
    output: Path = Path("runs/compare-family")
    retry: bool = False
    force: bool = False
    json: bool = False


PRESETS = {
    "quick": CompareFamily(resolution=8, settings=replace(QUICK, samples=512, sample_batch=128)),
    "emoji": CompareFamily(settings=EMOJI),
    "photos": CompareFamily(settings=PHOTOS),
}


def compare_family(options: CompareFamily, command: str = "") -> dict[str, Any]:
    """Run the command."""
    families = dict.fromkeys(family_named(name) for name in options.models)
    cells = [Cell(family, options.resolution, FAMILIES[family].size) for family in families]
    return run_cells("family", cells, options, command)


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return comparison_main(
        compare_family, CompareFamily, PRESETS, arguments, program or "rasterwise compare family"
    )


if __name__ == "__main__":
    sys.exit(main())
