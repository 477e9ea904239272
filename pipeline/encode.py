"""Encode a dataset once: ``rasterwise encode``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.models import open_tokenizer
from rasterwise.augmentation import Augmentation
from rasterwise.codes import encode_dataset
from rasterwise.command_line import run_command
from rasterwise.data import SAME, DataConfig, open_images, same_data
from rasterwise.metrics import histogram_entropy_nats
from rasterwise.progress import Progress


@dataclass(frozen=True)
class Encode:
    """Encode a dataset of images to codes, which a prior is then trained on.

    Attributes:
        tokenizer: A trained VQ-VAE: its run's folder, its model folder, or a Hub id.
        output: The codes' folder. Codes of the same images and tokenizer that are there already are kept.
        data: The images.
        copies: Augmented copies of each training image to encode beside the image itself; for small datasets.
        augmentation: How the copies differ from the image.
        batch_size: Images at once.
        json: Print the report as JSON.
    """

    tokenizer: str = "runs/vqvae"
    output: Path = Path("runs/codes")
    data: DataConfig = field(default_factory=lambda: DataConfig(dataset=SAME))
    copies: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    batch_size: int = 256
    json: bool = False


def encode(options: Encode) -> dict[str, Any]:
    """Run the command; returns the code dataset's size and statistics."""
    tokenizer = open_tokenizer(options.tokenizer)
    if torch.cuda.is_available():
        tokenizer.cuda()
    with Progress("reading pictures", "picture") as progress:
        data = open_images(same_data(options.data, tokenizer.trained_on), progress)
    with Progress("encoding", "picture") as progress:
        codes = encode_dataset(
            tokenizer,
            data,
            options.output,
            copies=options.copies,
            augmentation=options.augmentation,
            batch_size=options.batch_size,
            progress=progress,
        )
    histogram = sum(
        torch.bincount(batch.values.flatten(), minlength=codes.key.grid.levels)
        for batch in codes.train.ordered(4096)
    )
    assert isinstance(histogram, torch.Tensor)
    return {
        "output": str(options.output),
        "train_grids": codes.train.length,
        "test_grids": codes.test.length,
        "grid": str(codes.key.grid),
        "codes_used": int((histogram > 0).sum()),
        "code_histogram_entropy_nats": histogram_entropy_nats(histogram),
    }


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(encode, Encode, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
