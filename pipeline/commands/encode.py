"""Encode a dataset to codes: ``rasterwise encode``, or ``python -m rasterwise encode`` under torchrun."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from pipeline.models import open_tokenizer
from rasterwise.codes.encode import encode_dataset
from rasterwise.codes.writing import SHARD_SIZE, claim_codes
from rasterwise.command_line.run import run_command
from rasterwise.configuration import BatchSize, Count, CountOrZero, configuration
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import SAME_DATA, DataConfig, same_data
from rasterwise.data.dataset import open_images
from rasterwise.measure.metrics import histogram_entropy_nats
from rasterwise.progress import Progress


@configuration()
class Encode:
    """Encode a dataset of images to codes, on which a prior is then trained.

    The same command goes on with an encoding that was stopped or killed.

    Attributes:
        tokenizer: A trained VQ-VAE: its run's folder, its model folder, or a Hub id.
        output: The codes' folder. Codes of the same images and tokenizer that it holds already are kept.
        data: The images.
        captions: Keep the captions of each image with its codes, for models of text and images.
        copies: Augmented copies of each training image to encode besides the image itself; for small datasets.
        augmentation: How the copies differ from the image.
        batch_size: Images at once.
        shard_size: Images in each file. A stop loses at most this many.
        json: Print the report as JSON.
    """

    tokenizer: str = "runs/vqvae"
    output: Path = Path("runs/codes")
    data: DataConfig = SAME_DATA
    captions: bool = False
    copies: CountOrZero = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    batch_size: BatchSize = 256
    shard_size: Count = SHARD_SIZE
    json: bool = False


def encode(options: Encode) -> dict[str, Any]:
    """Run the command; returns the code dataset's size and statistics."""
    claim_codes(options.output)
    # A process that is done waits for the slowest one, however long it takes.
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))]
    )
    tokenizer = open_tokenizer(options.tokenizer).to(accelerator.device)
    main = accelerator.is_main_process
    with Progress("reading images", "image", shown=main) as progress:
        data = open_images(same_data(options.data, tokenizer.trained_on), progress, captions=options.captions)
    data.origin.refuse_output(options.output)
    broken = len(data.train.broken) + len(data.test.broken)
    with Progress("encoding", "image", shown=main) as progress:
        codes = encode_dataset(
            tokenizer,
            data,
            options.output,
            copies=options.copies,
            augmentation=options.augmentation,
            batch_size=options.batch_size,
            shard_size=options.shard_size,
            progress=progress,
            accelerator=accelerator,
        )
    # Broken images that were read into memory are counted above. Each other one lacks a grid, and so do its copies.
    broken += data.train.length - codes.train.length // (1 + options.copies)
    broken += data.test.length - codes.test.length
    histogram = sum(
        torch.bincount(batch.values.flatten(), minlength=codes.key.grid.levels)
        for batch in codes.train.ordered(4096)
    )
    assert isinstance(histogram, torch.Tensor)
    return {
        "output": str(options.output),
        "train_grids": codes.train.length,
        "test_grids": codes.test.length,
        "images_found": data.found,
        "images_read": data.found - broken,
        "broken_images": broken,
        "grid": str(codes.key.grid),
        "codes_used": int((histogram > 0).sum()),
        "code_histogram_entropy_nats": histogram_entropy_nats(histogram),
    }


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(encode, Encode, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
