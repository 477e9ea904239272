"""Quantizers, autoencoders and losses at equal bits: ``rasterwise compare tokenizer``."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.compare.measurement.cell import DONE, FAILED, OUT_OF_MEMORY, RESULT_NAME, STOPPED, Figures
from pipeline.compare.measurement.comparison import CELLS, NOT_YET
from pipeline.compare.measurement.tokenizer import measure_tokenizer
from pipeline.compare.plan.tokenizers import TokenizerCell, TokenizerSettings
from pipeline.compare.report.tokenizers import publish_tokenizers
from rasterwise.command_line.run import run_command
from rasterwise.command_line.statuses import FAILED as FAILED_STATUS
from rasterwise.configuration import configuration
from rasterwise.data.dataset import open_images
from rasterwise.errors import UnfinishedError
from rasterwise.files import read_json, remove_folder, write_json
from rasterwise.measure.machine import machine_facts
from rasterwise.measure.timing import chosen_device, in_fresh_process
from rasterwise.outputs import claim_folder
from rasterwise.progress import Progress
from rasterwise.training.run.run_folder import RunFolder
from stage1_vqvae import VQVAE


@configuration()
class CompareTokenizer:
    """Train and measure tokenizers of the same bits an image, each with a prior of one size on its codes.

    Every quantizer with every autoencoder and every loss is a cell and has a process of its own. The page index.html,
    comparison.csv and comparison.json are written after each cell. The same command again goes on, and others may be
    added.

    Attributes:
        quantizers: ema, l2, fsq, lfq, simvq, residual, gumbel.
        autoencoders: convolutional, attention, vit.
        losses: mse, mae, logistic, logit-laplace; perceptual (mse and a perceptual loss); vqgan (that and a
            discriminator in the last two thirds of the training).
        settings: Of all cells.
        output: The comparison's folder.
        retry: Do failed cells again, and those that did not fit.
        force: Delete the comparison that is in the folder and start anew.
        json: Print the report as JSON.
    """

    quantizers: tuple[str, ...] = ("ema", "l2", "fsq", "lfq", "simvq", "residual", "gumbel")
    autoencoders: tuple[str, ...] = ("convolutional",)
    losses: tuple[str, ...] = ("mse",)
    settings: TokenizerSettings = field(default_factory=TokenizerSettings)
    output: Path = Path("runs/compare-tokenizer")
    retry: bool = False
    force: bool = False
    json: bool = False


def compare_tokenizer(options: CompareTokenizer, command: str = "") -> dict[str, Any]:
    """Run the command."""
    settings, output = options.settings, options.output
    cells = [
        TokenizerCell(*parts)
        for parts in itertools.product(options.quantizers, options.autoencoders, options.losses)
    ]
    claim_folder(output)
    with Progress("reading images", "image") as progress:
        shape = open_images(settings.data, progress).shape
    for cell in cells:
        VQVAE(cell.config(settings, shape[0])).grid(*shape)
    run = RunFolder.claim(output, "compare tokenizer", settings, force=options.force)
    run.begin()
    earlier = [
        TokenizerCell.named(path.parent.name) for path in sorted((output / CELLS).glob(f"*/{RESULT_NAME}"))
    ]
    wanted = list(dict.fromkeys([*cells, *earlier]))
    folders = {cell.name: output / CELLS / cell.name for cell in wanted}
    machine = machine_facts(chosen_device(settings.device))

    def publish_now() -> dict[str, Figures]:
        figures = {name: _figures(folder) for name, folder in folders.items()}
        publish_tokenizers(figures, folders, settings, machine, command, output)
        return figures

    figures = publish_now()
    lacking = [cell for cell in cells if _lacks(figures[cell.name]["status"], options.retry)]
    with Progress("compare tokenizer", "cell") as progress:
        for number, cell in enumerate(lacking, 1):
            progress.line(f"compare tokenizer: cell {number} of {len(lacking)}, {cell.name}")
            folder = folders[cell.name]
            if options.retry and (folder / RESULT_NAME).exists():
                remove_folder(folder)
            if _run_cell(cell, settings, folder)["status"] == STOPPED:
                raise KeyboardInterrupt
            figures = publish_now()
            progress(number, len(lacking))
    not_done = {name: one["status"] for name, one in figures.items() if one["status"] != DONE}
    report = {
        "page": str(output / "index.html"),
        "output": str(output),
        "cells": len(figures),
        "not_done": not_done,
    }
    run.finish(report)
    if FAILED in not_done.values():
        raise UnfinishedError(report, FAILED_STATUS)
    return report


def _run_cell(cell: TokenizerCell, settings: TokenizerSettings, folder: Path) -> Figures:
    """A cell in a process of its own, the end of which is its own."""
    try:
        return in_fresh_process(settings.threads, measure_tokenizer, cell, settings, folder)
    except BrokenProcessPool:
        figures: Figures = {
            "status": OUT_OF_MEMORY,
            "reason": "the system ended its process, for want of memory most likely",
        }
    write_json(folder / RESULT_NAME, figures)
    return figures


def _figures(folder: Path) -> Figures:
    path = folder / RESULT_NAME
    return read_json(path) if path.exists() else {"status": NOT_YET}


def _lacks(status: str, retry: bool) -> bool:
    return status == NOT_YET or (retry and status != DONE)


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    program = program or "rasterwise compare tokenizer"
    command = partial(compare_tokenizer, command=" ".join([program, *words]))
    return run_command(command, CompareTokenizer, words, program)


if __name__ == "__main__":
    sys.exit(main())
