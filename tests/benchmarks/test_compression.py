"""The compression benchmark measures every coder on the same pictures, which all come back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.compression import main, measured, own_coder, usual_coders
from rasterwise import Grid, ImagePipeline, PixelCNN, PixelCNNConfig, PixelTokenizer

pytest.importorskip("imagecodecs")


def tiny(grid: Grid) -> ImagePipeline:
    config = PixelCNNConfig(grid=grid, width=2 * grid.channels, output_width=4, blocks=1, input_kernel=3)
    return ImagePipeline(PixelTokenizer(), PixelCNN(config).eval())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table, and a file with a cell for each coder."""
    pipeline = tiny(Grid(1, 8, 8, 256)).save_pretrained(tmp_path / "pipeline")
    words = ["--pipeline", str(pipeline), "--dataset", "digits", "--images", "3", "--rounds", "1"]
    assert main([*words, "--output", str(tmp_path / "x.json")]) == 0
    assert "| Rasterwise, pixelcnn |" in capsys.readouterr().out
    cells = json.loads((tmp_path / "x.json").read_text())["cells"]
    assert len(cells) == 8
    assert all(cell["lossless"] and cell["bits_per_subpixel"] > 0 for cell in cells)
    assert all(cell["stacked_bytes"] > 0 for cell in cells[:-1])


def test_colours_of_several_sizes_come_back() -> None:
    """Pictures of several sizes are not stacked."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (4, width, 3), dtype=np.uint8) for width in (4, 5)]
    cells = measured([*usual_coders(1), own_coder(tiny(Grid(3, 4, 4, 256)), 2)], pictures, 1)
    assert all(cell["lossless"] for cell in cells.values())
    assert not any("stacked_bytes" in cell for cell in cells.values())
