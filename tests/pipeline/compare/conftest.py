"""Comparisons whose figures are made up, so that tables, plots and pages need no training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.compare.measurement.cell import DONE, OUT_OF_MEMORY, RECONSTRUCTIONS_NAME, SAMPLES_NAME
from pipeline.compare.measurement.comparison import NOT_YET, Comparison, Row
from pipeline.compare.plan.families import FAMILIES
from pipeline.compare.plan.settings import Cell, Settings, Size
from rasterwise.images import image_grid, save_image

MACHINE = {
    "device": "cpu",
    "cpu_model": "A <made-up> processor",
    "cpu_cores_usable": 2,
    "memory_bytes": 24e9,
    "torch": "2.15",
    "commit": "0123456789abcdef",
    "date": "2026-11-24T12:00:00+00:00",
}

Planted = Callable[[str], Comparison]


def figures_of(cell: Cell, number: int) -> dict[str, Any]:
    """Figures that grow with the pixels, or with the codes of a two-stage model."""
    symbols, side = FAMILIES[cell.family].symbols, cell.resolution
    sites = 64 if symbols == "codes" else side * side * (3 if symbols == "subpixels" else 1)
    parameters = cell.size.width**2 * cell.size.depth * 20
    return {
        "status": DONE,
        "parameters": parameters,
        "tokenizer_parameters": 250_000 if symbols == "codes" else None,
        "training_steps": 500,
        "tokenizer_training_steps": 500 if symbols == "codes" else None,
        "training_images_per_second": 2e5 / side**2 * (number + 1),
        "tokenizer_training_images_per_second": 90.0 if symbols == "codes" else None,
        "training_seconds": 600.0,
        "training_flops": 6e6 * parameters,
        "training_peak_bytes": int(4e8 + 2e4 * side**2 * (number + 1)),
        "bits_per_dim": 3.1 * parameters**-0.05 + 0.1 * number if symbols == "subpixels" else None,
        "elbo_bits_per_dim": 4.4 if symbols == "codes" else None,
        "nats_per_code": 3.4 if symbols == "codes" else None,
        "nats_per_palette_colour": 2.9 if symbols == "palette" else None,
        "psnr_db": {"codes": 31 - side / 10, "palette": 33.0}.get(symbols),
        "symbols_an_image": sites,
        "naive_evaluations_an_image": sites,
        "parallel_evaluations_an_image": None,
        "flops_an_image": 1e5 * sites,
        "score_seconds_an_image": 1e-5 * sites,
        "score_batch": 16,
        "sample_seconds_an_image": 1e-4 * sites * (1 + number / 3),
        "sample_batch": 16,
        "sample_seconds_extrapolated": side >= 128,
        "naive_seconds_an_image_extrapolated": 1e-5 * sites**2,
        "samples": 0 if side >= 128 else 64,
        "sample_peak_bytes": int(5e8),
        "frechet": None if side >= 128 else 30.0 + 10 * number + side / 4,
        "frechet_floor": None if side >= 128 else 11.0,
        "frechet_images": None if side >= 128 else 64,
    }


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    """Makes a comparison of a kind: all cells done but one that did not fit, and one that has not begun."""

    def make(kind: str) -> Comparison:
        settings = Settings()
        families = ["gated-pixelcnn", "pixelcnn-pp", "image-gpt", "vqvae-prior"]
        if kind == "resolution":
            cells = [Cell(name, side, FAMILIES[name].size) for name in families for side in (16, 32, 64, 128)]
        elif kind == "size":
            cells = [Cell("gated-pixelcnn", 32, Size(12 * depth, depth)) for depth in range(2, 8)]
        else:
            cells = [Cell(name, 32, FAMILIES[name].size) for name in [*FAMILIES, "pixelcnn"][:8]]
        rows = []
        for number, cell in enumerate(cells):
            folder = tmp_path / "cells" / cell.name
            figures = figures_of(cell, list(FAMILIES).index(cell.family))
            if kind == "family":
                figures["classes"] = [str(digit) for digit in range(10)]
                figures["coverage"] = {
                    "drawn": [number + digit for digit in range(10)], "data_shares": [0.1] * 10,
                    "total_variation": 0.12, "floor": 0.05, "p_value": 0.03, "missing": 0, "classifier_accuracy": 0.98,
                }  # fmt: skip
                if cell.family == "image-gpt":
                    score = {"accuracy": 0.8, "standard_error": 0.02}
                    figures |= {"probe": {"layers": [score] * 5, "pixels": score}, "probe_best_accuracy": 0.8}
            images = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8)
            save_image(image_grid(images), folder / SAMPLES_NAME)
            if figures["psnr_db"]:
                save_image(image_grid(images, columns=8), folder / RECONSTRUCTIONS_NAME)
            rows.append(Row(cell, figures, folder))
        rows[-2] = Row(
            rows[-2].cell, {"status": OUT_OF_MEMORY, "reason": "you tried to <allocate>"}, tmp_path
        )
        rows[-1] = Row(rows[-1].cell, {"status": NOT_YET}, tmp_path)
        return Comparison(kind, settings, tuple(rows), MACHINE, f"rasterwise compare {kind} --seed 0")

    return make
