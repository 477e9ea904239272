"""Images from a trained pipeline: ``rasterwise sample``, ``reconstruct`` and ``complete``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pipeline.image_pipeline import ImagePipeline, class_number
from rasterwise.command_line.run import run_command
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.images import (
    image_grid,
    save_image,
    to_pil,
)
from rasterwise.progress import Progress


@dataclass(frozen=True)
class Sample:
    """Draw new images. Under torchrun or ``accelerate launch``, processes share the work.

    Attributes:
        pipeline: A pipeline's folder, a prior's run, or a Hub id.
        n: How many.
        label: Classes by name or number, dealt out in turn; by default all of them, a row each, where the
            model has classes.
        output: A .png for one image of them all, or a folder for a file each.
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


def _save(images: Tensor, output: Path, columns: int | None) -> None:
    if output.suffix == ".png":
        save_image(image_grid(images, columns), output)
    else:
        for number, image in enumerate(images):
            save_image(to_pil(image), output / f"{number:05d}.png")


def _check_output(output: Path, *, image: bool = False) -> None:
    if image and output.suffix != ".png":
        raise InputError(f"output {output} is no .png name")
    if output.suffix != ".png" and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"output folder {output} is not empty; name a new one, or a .png")


def main_sample(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command ``rasterwise sample``."""
    return run_command(sample, Sample, arguments, program)
