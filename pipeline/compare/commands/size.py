"""One family at several sizes: ``rasterwise compare size``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from pipeline.compare.commands.command import comparison_main, run_cells
from pipeline.compare.plan.families import family_named
from pipeline.compare.plan.presets import EMOJI, PHOTOS, QUICK
from pipeline.compare.plan.settings import Cell, Settings, Size
from rasterwise.configuration import Pixels, configuration


@configuration()
class CompareSize:
    """Train one family at several sizes, and fit power laws of its loss in parameters and in training FLOPs.

    Attributes:
        model: As for ``rasterwise compare resolution``. A two-stage model's prior grows; its VQ-VAE does not.
        resolution: Pixels a side.
        sizes: WIDTHxDEPTH of each. Three or more give the power laws a confidence band.
        settings: Of all cells. With a budget of steps, all sizes are trained on the same images.
        output: The comparison's folder.
        retry: Do failed cells again, and those that did not fit.
        force: Delete the comparison that is in the folder and start anew.
        json: Print the report as JSON.
    """

    model: str = "gated-pixelcnn"
    resolution: Pixels = 32
    sizes: tuple[str, ...] = ("12x2", "24x3", "36x4", "48x6", "72x8")
    settings: Settings = field(default_factory=lambda: Settings(budget="1000steps"))
    output: Path = Path("runs/compare-size")
    retry: bool = False
    force: bool = False
    json: bool = False


PRESETS = {
    "quick": CompareSize(
        resolution=8, sizes=("8x2", "16x3", "24x4", "48x5"), settings=replace(QUICK, budget="400steps")
    ),
    "emoji": CompareSize(settings=replace(EMOJI, budget="1000steps")),
    "photos": CompareSize(settings=replace(PHOTOS, budget="1000steps")),
}


def compare_size(options: CompareSize, command: str = "") -> dict[str, Any]:
    """Run the command."""
    family = family_named(options.model)
    cells = [Cell(family, options.resolution, Size.parse(size)) for size in dict.fromkeys(options.sizes)]
    return run_cells("size", cells, options, command)


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return comparison_main(
        compare_size, CompareSize, PRESETS, arguments, program or "rasterwise compare size"
    )


if __name__ == "__main__":
    sys.exit(main())
