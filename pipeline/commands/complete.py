"""Keep a part of images and draw the rest: ``rasterwise complete``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from pipeline.image_pipeline import ImagePipeline
from rasterwise.command_line.run import run_command
from rasterwise.configuration import BatchSize, Seed, Share, configuration
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.images import Colour, image_grid, open_image, pil_to_tensor, resized, save_image
from rasterwise.outputs import claim_image
from rasterwise.progress import Progress


@configuration()
class Complete:
    """Keep a part of images and draw the rest.

    Attributes:
        pipeline: A pipeline's folder, a prior's run, or a Hub id.
        images: Image files; they are fitted to the model's size.
        keep: The side of the images that is kept.
        share: The share of the images that is kept, from 0 to 1.
        n: Completions of each image.
        label: A class by name or index.
        output: A .png name. Each row is an image and its completions.
        sampling: How symbols are drawn.
        seed: The same seed gives the same images.
        parallel: As for ``rasterwise sample``.
        json: Print the report as JSON.
    """

    pipeline: str
    images: tuple[Path, ...]
    keep: Literal["top", "bottom", "left", "right"] = "top"
    share: Share = 0.5
    n: BatchSize = 7
    label: str | None = None
    output: Path = Path("completions.png")
    sampling: Sampling = field(default_factory=Sampling)
    seed: Seed = 0
    parallel: bool = False
    json: bool = False


def complete(options: Complete) -> dict[str, Any]:
    """Run ``rasterwise complete``."""
    output = claim_image(options.output, inputs=options.images)
    if not options.images:
        raise InputError("no images were named; give one file or more")
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    pipeline = ImagePipeline.from_pretrained(options.pipeline).to(accelerator.device)
    channels, height, width = pipeline.image_shape
    colour: Colour = "grey" if channels == 1 else "rgb"
    originals = torch.stack(
        [pil_to_tensor(resized(open_image(path), height, width), colour) for path in options.images]
    )
    repeated = originals.repeat_interleave(options.n, 0)
    with Progress("completing", "image", shown=accelerator.is_main_process) as progress:
        completed = pipeline.complete(
            repeated,
            kept_side(height, width, options.keep, options.share),
            options.label,
            sampling=options.sampling,
            seed=options.seed,
            parallel=options.parallel,
            accelerator=accelerator,
            output="tensor",
            progress=progress,
        )
    if accelerator.is_main_process:
        rows = [
            torch.cat([original[None], part])
            for original, part in zip(originals, completed.split(options.n), strict=True)
        ]
        save_image(image_grid(torch.cat(rows), columns=options.n + 1), output)
    return {"output": str(options.output), "images": len(originals), "completions": options.n}


def kept_side(height: int, width: int, side: str, share: float) -> Tensor:
    """The mask of one side of an image: bool ``(H, W)``, true where pixels are kept."""
    keep = torch.zeros(height, width, dtype=torch.bool)
    rows, columns = round(height * share), round(width * share)
    if side == "top":
        keep[:rows] = True
    elif side == "bottom":
        keep[height - rows :] = True
    elif side == "left":
        keep[:, :columns] = True
    else:
        keep[:, width - columns :] = True
    return keep


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(complete, Complete, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
