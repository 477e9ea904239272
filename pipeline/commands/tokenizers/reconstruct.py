"""Encode and decode images with a tokenizer: ``rasterwise reconstruct``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.models import open_tokenizer
from rasterwise.command_line.run import run_command
from rasterwise.configuration import Pixels, configuration
from rasterwise.errors import InputError
from rasterwise.images import Colour, image_grid, open_image, pil_to_tensor, resized, save_image
from rasterwise.models.pretrained import local_folder
from rasterwise.outputs import claim_image


@configuration()
class Reconstruct:
    """Encode and decode images, to show what the tokenizer keeps of them.

    Attributes:
        source: A VQ-VAE's or a pipeline's folder, a run's folder, or a Hub id.
        images: Image files.
        size: Resize the shorter side to this and crop the central square. By default the size of the first image,
            or the nearest one that the tokenizer takes.
        output: A .png name. Each original is above its reconstruction.
        json: Print the report as JSON.
    """

    source: str
    images: tuple[Path, ...]
    size: Pixels | None = None
    output: Path = Path("reconstructions.png")
    json: bool = False


def reconstruct(options: Reconstruct) -> dict[str, Any]:
    """Run ``rasterwise reconstruct``."""
    output = claim_image(options.output, inputs=options.images)
    folder = local_folder(options.source)
    tokenizer = open_tokenizer(folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder)
    colour: Colour = "grey" if tokenizer.channels == 1 else "rgb"
    factor = tokenizer.factor
    opened = [open_image(path) for path in options.images]
    if not opened:
        raise InputError("no images were named; give one file or more")
    size = options.size or max(factor, round(min(opened[0].size) / factor) * factor)
    images = torch.stack([pil_to_tensor(resized(image, size, size), colour) for image in opened])
    tokenizer.grid(*images.shape[1:])
    reconstructions = tokenizer.decode(tokenizer.encode(images))
    mse = (reconstructions.double() - images.double()).square().mean().item()
    save_image(image_grid(_rows(images, reconstructions), columns=min(8, len(images))), output)
    return {"output": str(options.output), "images": len(images), "size": size, "mse": mse}


def _rows(originals: Tensor, reconstructions: Tensor) -> Tensor:
    pairs = zip(originals.split(8), reconstructions.split(8), strict=True)
    return torch.cat([part for pair in pairs for part in pair])


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(reconstruct, Reconstruct, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
