"""Pictures from a trained pipeline: ``rasterwise sample``, ``reconstruct`` and ``complete``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from pipeline.image_pipeline import ImagePipeline, class_number
from pipeline.models import open_tokenizer
from rasterwise.command_line import run_command
from rasterwise.errors import InputError
from rasterwise.images import (
    Colour,
    open_picture,
    picture_grid,
    picture_to_tensor,
    resized,
    save_picture,
    to_picture,
)
from rasterwise.pretrained import local_folder
from rasterwise.progress import Progress
from rasterwise.sampling import Sampling


@dataclass(frozen=True)
class Sample:
    """Draw new images. Under torchrun or ``accelerate launch``, processes share the work.

    Attributes:
        pipeline: A pipeline's folder, a prior's run, or a Hub id.
        n: How many.
        label: Classes by name or number, dealt out in turn; by default all of them, a row each, where the
            model has classes.
        output: A .png for one picture of them all, or a folder for a file each.
        sampling: How symbols are drawn.
        seed: The same seed gives the same images.
        batch_size: How many are drawn at once, in each process.
        parallel: Evaluate the model on all symbols of an image at once until they agree, not on one after
            another: the same images, in fewer evaluations that cost more each; the report counts them.
        json: Print the report as JSON.
    """

    pipeline: str = "runs/prior"
    n: int = 64
    label: tuple[str, ...] = ()
    output: Path = Path("samples.png")
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    batch_size: int = 64
    parallel: bool = False
    json: bool = False


@dataclass(frozen=True)
class Reconstruct:
    """Show what is left of images after the tokenizer.

    Attributes:
        source: A VQ-VAE's or a pipeline's folder, a run's folder, or a Hub id.
        images: Picture files.
        size: Resize the shorter side to this and crop the centre square; by default the nearest size
            that the tokenizer takes.
        output: A .png: each original above its reconstruction.
        json: Print the report as JSON.
    """

    source: str
    images: tuple[Path, ...]
    size: int | None = None
    output: Path = Path("reconstructions.png")
    json: bool = False


@dataclass(frozen=True)
class Complete:
    """Keep a part of images and draw the rest.

    Attributes:
        pipeline: A pipeline's folder, a prior's run, or a Hub id.
        images: Picture files, fitted to the model's size.
        keep: Which side of the images is kept.
        share: How much of them is kept, from 0 to 1.
        n: Completions of each image.
        label: A class by name or number.
        output: A .png: a row an image, the original first.
        sampling: How symbols are drawn.
        seed: The same seed gives the same images.
        parallel: As for ``rasterwise sample``.
        json: Print the report as JSON.
    """

    pipeline: str
    images: tuple[Path, ...]
    keep: Literal["top", "bottom", "left", "right"] = "top"
    share: float = 0.5
    n: int = 7
    label: str | None = None
    output: Path = Path("completions.png")
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    parallel: bool = False
    json: bool = False


def sample(options: Sample) -> dict[str, Any]:
    """Run ``rasterwise sample``."""
    _check_output(options.output)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    pipeline = ImagePipeline.from_pretrained(options.pipeline).to(accelerator.device)
    classes = pipeline.model.config.classes
    chosen = [class_number(label, classes) for label in options.label] or list(range(len(classes)))
    labels = sorted((chosen * options.n)[: options.n], key=chosen.index) if chosen else None
    with Progress("sampling", "image", shown=accelerator.is_main_process) as progress:
        drawn = pipeline.sample_symbols(
            options.n,
            labels,
            sampling=options.sampling,
            seed=options.seed,
            batch_size=options.batch_size,
            parallel=options.parallel,
            accelerator=accelerator,
            progress=progress,
        )
    if accelerator.is_main_process:
        images = pipeline.decode(drawn.symbols, "tensor", batch_size=options.batch_size)
        even = chosen and options.n % len(chosen) == 0
        _save(images, options.output, columns=options.n // len(chosen) if even else None)
    report: dict[str, Any] = {"output": str(options.output), "images": options.n, "seed": options.seed}
    if drawn.evaluations is not None:
        report["evaluations"] = {
            "mean": drawn.evaluations.double().mean().item(),
            "most": int(drawn.evaluations.max()),
            "sequential": pipeline.model.grid.size,
        }
    return report


def reconstruct(options: Reconstruct) -> dict[str, Any]:
    """Run ``rasterwise reconstruct``."""
    _check_output(options.output, picture=True)
    folder = local_folder(options.source)
    tokenizer = open_tokenizer(folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder)
    colour: Colour = "grey" if getattr(tokenizer.config, "channels", 3) == 1 else "rgb"
    factor = getattr(tokenizer.config, "factor", 1)
    pictures = [open_picture(path) for path in options.images]
    if not pictures:
        raise InputError("no pictures were named; give one file or more")
    size = options.size or max(factor, round(min(pictures[0].size) / factor) * factor)
    images = torch.stack([picture_to_tensor(resized(picture, size, size), colour) for picture in pictures])
    tokenizer.grid(*images.shape[1:])
    reconstructions = tokenizer.decode(tokenizer.encode(images))
    mse = (reconstructions.double() - images.double()).square().mean().item()
    save_picture(picture_grid(_rows(images, reconstructions), columns=min(8, len(images))), options.output)
    return {"output": str(options.output), "images": len(images), "size": size, "mse": mse}


def complete(options: Complete) -> dict[str, Any]:
    """Run ``rasterwise complete``."""
    _check_output(options.output, picture=True)
    if not 0 <= options.share <= 1:
        raise InputError(f"share is {options.share}, expected 0 to 1")
    if options.n < 1 or not options.images:
        raise InputError("give one picture file or more, and ask for at least one completion of each")
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    pipeline = ImagePipeline.from_pretrained(options.pipeline).to(accelerator.device)
    channels, height, width = pipeline.image_shape
    colour: Colour = "grey" if channels == 1 else "rgb"
    originals = torch.stack(
        [picture_to_tensor(resized(open_picture(path), height, width), colour) for path in options.images]
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
        save_picture(picture_grid(torch.cat(rows), columns=options.n + 1), options.output)
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


def _save(images: Tensor, output: Path, columns: int | None) -> None:
    if output.suffix == ".png":
        save_picture(picture_grid(images, columns), output)
    else:
        for number, image in enumerate(images):
            save_picture(to_picture(image), output / f"{number:05d}.png")


def _check_output(output: Path, *, picture: bool = False) -> None:
    if picture and output.suffix != ".png":
        raise InputError(f"output {output} is no .png name")
    if output.suffix != ".png" and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"output folder {output} is not empty; name a new one, or a .png")


def _rows(originals: Tensor, reconstructions: Tensor) -> Tensor:
    pairs = zip(originals.split(8), reconstructions.split(8), strict=True)
    return torch.cat([part for pair in pairs for part in pair])


def main_sample(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command ``rasterwise sample``."""
    return run_command(sample, Sample, arguments, program)


def main_reconstruct(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command ``rasterwise reconstruct``."""
    return run_command(reconstruct, Reconstruct, arguments, program)


def main_complete(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command ``rasterwise complete``."""
    return run_command(complete, Complete, arguments, program)
