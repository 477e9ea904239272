"""Pixels against tokens as images grow: ``rasterwise compare resolution``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from pipeline.compare.commands.command import comparison_main, run_cells
from pipeline.compare.plan.families import FAMILIES, family_named
from pipeline.compare.plan.presets import EMOJI, PHOTOS, QUICK
from pipeline.compare.plan.settings import Cell, Settings
from rasterwise.configuration import Pixels, configuration


@configuration()
class CompareResolution:
    """Train and measure models at several resolutions of the same images under the same budget.

    Every model at every resolution is a cell and has a process of its own. The page index.html, comparison.csv,
    comparison.json and the plots are written after each cell. The same command again goes on, and models or
    resolutions may be added. --preset quick takes the built-in digits and 10 minutes on 2 cores; --preset emoji and
    --preset photos need --dataset.

    Attributes:
        models: pixelcnn, gated-pixelcnn, pixelcnn-pp (or pixelcnn++), row-lstm, diagonal-bilstm, image-gpt,
            vqvae-prior (a transformer over a VQ-VAE's codes), gated-prior (a Gated PixelCNN over them).
        resolutions: Pixels a side; images are resized by --resample.
        settings: Of all cells.
        output: The comparison's folder.
        retry: Do failed cells again, and those that did not fit.
        force: Delete the comparison that is in the folder and start anew.
        json: Print the report as JSON.
    """

    models: tuple[str, ...] = ("gated-pixelcnn", "pixelcnn-pp", "image-gpt", "vqvae-prior")
    resolutions: tuple[Pixels, ...] = (16, 32, 64, 128)
    settings: Settings = field(default_factory=Settings)
    output: Path = Path("runs/compare-resolution")
    retry: bool = False
    force: bool = False
    json: bool = False


PRESETS = {
    "quick": CompareResolution(resolutions=(4, 8, 16), settings=QUICK),
    "emoji": CompareResolution(settings=EMOJI),
    "photos": CompareResolution(settings=PHOTOS),
}


def compare_resolution(options: CompareResolution, command: str = "") -> dict[str, Any]:
    """Run the command."""
    families = dict.fromkeys(family_named(name) for name in options.models)
    cells = [
        Cell(family, resolution, FAMILIES[family].size)
        for family in families
        for resolution in sorted(set(options.resolutions))
    ]
    return run_cells("resolution", cells, options, command)


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return comparison_main(
        compare_resolution, CompareResolution, PRESETS, arguments, program or "rasterwise compare resolution"
    )


if __name__ == "__main__":
    sys.exit(main())
