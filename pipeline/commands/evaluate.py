"""Measure a trained VQ-VAE or pipeline on a test split: ``rasterwise evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator

from pipeline.evaluation.pipeline import evaluate_pipeline
from pipeline.evaluation.reconstruction import evaluate_reconstruction
from pipeline.image_pipeline import ImagePipeline
from pipeline.models import open_tokenizer
from rasterwise.command_line.run import run_command
from rasterwise.configuration import BatchSize, CountOrZero, Seed, configuration
from rasterwise.data.config import SAME_DATA, DataConfig, same_data
from rasterwise.data.dataset import image_counts, open_images
from rasterwise.models.pretrained import local_folder
from rasterwise.progress import Progress


@configuration()
class Evaluate:
    """Measure a trained VQ-VAE or pipeline on every image of a test split.

    Under torchrun or ``accelerate launch``, processes share the work.

    Attributes:
        source: A VQ-VAE's or a pipeline's folder, a run's folder, or a Hub id.
        data: The images.
        samples: Samples drawn for conditional_accuracy, as many of each class (0: none).
        seed: Of the samples and of the classifier.
        batch_size: Images at once.
        distance_images: Test images of which a VQ-VAE's distances in the features of EfficientNet-Lite2 are measured;
            0: none. The network comes with the extra "perceptual".
        json: Print the report as JSON.
    """

    source: str
    data: DataConfig = SAME_DATA
    samples: CountOrZero = 1000
    seed: Seed = 0
    batch_size: BatchSize = 128
    distance_images: CountOrZero = 1000
    json: bool = False


def evaluate(options: Evaluate) -> dict[str, Any]:
    """Run the command."""
    folder = local_folder(options.source)
    whole = (folder / "tokenizer").is_dir()
    pipeline = ImagePipeline.from_pretrained(folder) if whole else None
    tokenizer = pipeline.tokenizer if pipeline else open_tokenizer(folder)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    (pipeline or tokenizer).to(accelerator.device)
    with Progress("reading images", "image", shown=accelerator.is_main_process) as progress:
        data = open_images(same_data(options.data, tokenizer.trained_on), progress)
    tokenizer.grid(*data.shape)
    if pipeline is None:
        report: dict[str, Any] = evaluate_reconstruction(
            tokenizer, data, options.batch_size, options.distance_images
        )
    else:
        report = evaluate_pipeline(
            pipeline,
            data,
            samples=options.samples,
            seed=options.seed,
            batch_size=options.batch_size,
            distance_images=options.distance_images,
        )
    return {"source": options.source, **report, **image_counts(data, accelerator)}


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(evaluate, Evaluate, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
