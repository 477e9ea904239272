"""Classify images by the features of each layer of a trained model: ``rasterwise probe``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.evaluation.linear_probe import LayeredModel, probe_layers
from pipeline.image_pipeline import ImagePipeline
from rasterwise.command_line.run import run_command
from rasterwise.configuration import BatchSize, CountOrZero, Seed, configuration
from rasterwise.data.config import SAME_DATA, DataConfig, same_data
from rasterwise.data.dataset import open_images
from rasterwise.data.indexed import first_of
from rasterwise.errors import InputError
from rasterwise.measure.figures import require_matplotlib
from rasterwise.outputs import claim_image
from rasterwise.progress import Progress


@configuration()
class ProbeCommand:
    """Fit a linear classifier on the features of each layer of an ImageGPT, and on the pixels themselves.

    Attributes:
        source: A pipeline's folder, a run's folder, or a Hub id.
        data: Labelled images.
        train_size: Training images: the first of the split (0: all).
        test_size: Test images: the first of the split (0: all).
        output: A .png name for a plot of accuracy by layer, which needs the extra "plots". By default no plot.
        seed: Of the choice of validation images, which choose the regularization.
        batch_size: Images at once.
        json: Print the report as JSON.
    """

    source: str
    data: DataConfig = SAME_DATA
    train_size: CountOrZero = 0
    test_size: CountOrZero = 0
    output: Path | None = None
    seed: Seed = 0
    batch_size: BatchSize = 64
    json: bool = False


def probe(options: ProbeCommand) -> dict[str, Any]:
    """Run the command."""
    output = None if options.output is None else claim_image(options.output)
    if output is not None:
        require_matplotlib()
    pipeline = ImagePipeline.from_pretrained(options.source)
    if not isinstance(pipeline.model, LayeredModel):
        raise InputError(f"a {pipeline.model.kind} offers no features to probe, expected an image-gpt")
    if torch.cuda.is_available():
        pipeline.to("cuda")
    with Progress("reading images", "image") as progress:
        data = open_images(same_data(options.data, pipeline.tokenizer.trained_on), progress)
    with Progress("probing", "image") as progress:
        report = probe_layers(
            pipeline.model,
            pipeline.tokenizer,
            first_of(data.train, options.train_size),
            first_of(data.test, options.test_size),
            seed=options.seed,
            batch_size=options.batch_size,
            progress=progress,
        )
    if output is not None:
        report.save_plot(output)
    if not options.json:
        print(report.table(), end="\n\n")
    return {
        "source": options.source,
        "best_layer": report.best_layer,
        "best_layer_accuracy": report.layers[report.best_layer].accuracy,
        "last_layer_accuracy": report.layers[-1].accuracy,
        "raw_pixels_accuracy": report.pixels.accuracy,
        **({"output": str(options.output)} if options.output else {}),
        **({"report": dataclasses.asdict(report)} if options.json else {}),
    }


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(probe, ProbeCommand, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
