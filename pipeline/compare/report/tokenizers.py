"""The page of a comparison of tokenizers, and the same figures as CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from pipeline.compare.measurement.cell import DONE, RECONSTRUCTIONS_NAME, SAMPLES_NAME, Figures
from pipeline.compare.plan.tokenizers import TokenizerSettings
from pipeline.compare.report.page import PAGE_NAME, STYLE, embedded_image, plain, write_text
from pipeline.compare.report.tables import rounded
from rasterwise.files import write_json

COLUMNS = {
    "bits_an_image": "bits an image",
    "psnr_db": "PSNR, dB",
    "ssim": "SSIM",
    "reconstruction_frechet": "Fréchet distance of reconstructions",
    "reconstruction_frechet_floor": "of training images",
    "codebook_usage": "codes in use",
    "codebook_perplexity": "perplexity",
    "nats_per_code": "prior, nats a code",
    "prior_bits_an_image": "prior, bits an image",
    "sample_frechet": "Fréchet distance of samples",
    "sample_frechet_floor": "of test images",
    "tokenizer_steps": "steps of stage 1",
    "prior_steps": "steps of the prior",
    "tokenizer_parameters": "parameters of the tokenizer",
}
"""What the page shows, by the figures' names."""


def publish_tokenizers(
    figures: Mapping[str, Figures],
    folders: Mapping[str, Path],
    settings: TokenizerSettings,
    machine: dict[str, Any],
    command: str,
    output: Path,
) -> None:
    """Write ``index.html``, ``comparison.csv`` and ``comparison.json``.

    Args:
        figures: Of each cell by its name; ``status`` alone where it is not done.
        folders: Where its images are.
        settings: Of all cells.
        machine: Facts of the machine and the date.
        command: What was typed.
        output: The comparison's folder.
    """
    content = {"command": command, "settings": dataclasses.asdict(settings), "machine": machine}
    write_json(output / "comparison.json", plain({**content, "cells": dict(figures)}))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["cell", "status", *COLUMNS])
    for name, found in figures.items():
        table.writerow([name, found["status"], *(found.get(column) for column in COLUMNS)])
    write_text(output / "comparison.csv", text.getvalue())
    write_text(output / PAGE_NAME, _page(figures, folders, settings, machine, command))


def _page(
    figures: Mapping[str, Figures],
    folders: Mapping[str, Path],
    settings: TokenizerSettings,
    machine: dict[str, Any],
    command: str,
) -> str:
    title = "Image tokenizers at equal bits"
    rows, pictures = [], []
    for name, found in figures.items():
        if found["status"] == DONE:
            cells = "".join(f"<td>{escape(rounded(found.get(column)))}</td>" for column in COLUMNS)
            images = "".join(
                f"<td>{embedded_image(folders[name] / file, f'{name}: {file}')}</td>"
                for file in (RECONSTRUCTIONS_NAME, SAMPLES_NAME)
            )
            pictures.append(f"<tr><th>{escape(name)}</th>{images}</tr>")
        else:
            said = ": ".join(str(found[key]) for key in ("status", "reason") if key in found)
            cells = f'<td class=absent colspan="{len(COLUMNS)}">{escape(said)}</td>'
        rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    heads = "".join(f"<th>{escape(heading)}</th>" for heading in COLUMNS.values())
    device = machine["device"] if machine["device"] != "cpu" else machine["cpu_model"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>{STYLE}</style></head><body><h1>{title}</h1>
<p>Quantizer, autoencoder and loss of stage 1, each trained on <code>{escape(settings.data.name)}</code> with the same
budget ({escape(settings.budget)}, half of it for a transformer prior of {escape(settings.prior)} on its codes;
seed {settings.seed}). Fréchet distances are in the features of EfficientNet-Lite2, which no loss uses; compare them
within a column.</p>
<p class=note>Last command: <code>{escape(command)}</code><br>
Machine: {escape(str(device))}, {machine["cpu_cores_usable"]} cores; torch {escape(machine["torch"])};
{escape(machine["date"][:10])}</p>
<div class=scroll><table><thead><tr><th>tokenizer</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>
<h2>Images</h2>
<p class=note>The first test images above their reconstructions; samples at temperature 1, not selected.</p>
<div class=scroll><table class=grids><thead><tr><th></th><th>reconstructions</th><th>samples</th></tr></thead>
<tbody>{"".join(pictures)}</tbody></table></div></body></html>
"""
