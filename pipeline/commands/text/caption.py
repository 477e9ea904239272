"""Write captions of images: ``rasterwise caption``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import torch

from pipeline.image_pipeline import ImagePipeline
from rasterwise.command_line.run import run_command
from rasterwise.configuration import BatchSize, Seed, configuration
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError


@configuration()
class Caption:
    """Write captions of images with a trained model of text and images.

    Attributes:
        pipeline: The folder of a pipeline with a chameleon, its run, or a Hub id.
        images: Image files; they are fitted to the model's size.
        sampling: How tokens are drawn; by default the likeliest each time.
        seed: The same seed gives the same captions.
        batch_size: How many are drawn at once.
        json: Print the report as JSON.
    """

    pipeline: str
    images: tuple[Path, ...]
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    seed: Seed = 0
    batch_size: BatchSize = 64
    json: bool = False


def caption(options: Caption) -> dict[str, Any]:
    """Run the command; returns the captions by the names of the files."""
    if not options.images:
        raise InputError("no images were named; give one file or more")
    pipeline = ImagePipeline.from_pretrained(options.pipeline)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    captions = pipeline.caption(
        list(options.images), sampling=options.sampling, seed=options.seed, batch_size=options.batch_size
    )
    return {"captions": dict(zip(map(str, options.images), captions, strict=True))}


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(caption, Caption, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
