"""Draw new images with a trained pipeline: ``rasterwise sample``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from pipeline.image_pipeline import ImagePipeline, class_index
from rasterwise.command_line.run import run_command
from rasterwise.configuration import BatchSize, Count, CountOrZero, Seed, configuration
from rasterwise.decoding.sampling import Sampling
from rasterwise.images import image_grid, save_image
from rasterwise.outputs import claim_images, is_png, save_images
from rasterwise.progress import Progress


@configuration()
class Sample:
    """Draw new images. Under torchrun or ``accelerate launch``, processes share the work.

    Attributes:
        pipeline: A pipeline's folder, a prior's run, or a Hub id.
        n: How many.
        label: Classes by name or index, which share the images evenly. By default all classes that the model has,
            a row each.
        prompt: Texts to draw, which share the images evenly, a row each; for a model of text and images.
        best_of: Draw so many for each image of a prompt, and keep the one that the text fits best, by the model's own
            likelihood.
        output: A .png name for one image of them all, or a new folder for a file each.
        sampling: How symbols are drawn.
        seed: The same seed gives the same images.
        batch_size: How many are drawn at once, in each process.
        parallel: Evaluate the model on all symbols of an image at once until they agree, instead of one after
            another. The images are the same; the evaluations are fewer, each costs more, and the report counts them.
        window: With --parallel, for a transformer: evaluate at most so many symbols at once, over a KV cache of those
            that have settled, and draw the images one by one; 0 evaluates all symbols.
        steps: Draw each image in so many steps, several codes at once in each, by a prior that was trained for it
            (`train prior --model any-order`); 0 draws one symbol after the other.
        precision: bf16 has a transformer's weights and KV cache in bfloat16, where the processor has it. It is a
            distribution of its own, which `rasterwise evaluate --precision bf16` scores.
        json: Print the report as JSON.
    """

    pipeline: str = "runs/prior"
    n: Count = 64
    label: tuple[str, ...] = ()
    prompt: tuple[str, ...] = ()
    best_of: Count = 1
    output: Path = Path("samples.png")
    sampling: Sampling = field(default_factory=Sampling)
    seed: Seed = 0
    batch_size: BatchSize = 64
    parallel: bool = False
    window: CountOrZero = 0
    steps: CountOrZero = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    json: bool = False


def sample(options: Sample) -> dict[str, Any]:
    """Run ``rasterwise sample``."""
    output = claim_images(options.output)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    pipeline = ImagePipeline.from_pretrained(options.pipeline).to(accelerator.device)
    if options.precision == "bf16":
        pipeline = ImagePipeline(pipeline.tokenizer, pipeline.model.in_bf16(), pipeline.text_tokenizer)
    classes = pipeline.model.config.classes
    chosen = [class_index(label, classes) for label in options.label] or list(range(len(classes)))
    labels = sorted((chosen * options.n)[: options.n], key=chosen.index) if chosen else None
    prompts = sorted((options.prompt * options.n)[: options.n], key=options.prompt.index)
    rows = len(options.prompt) or len(chosen)
    with Progress("sampling", "image", shown=accelerator.is_main_process) as progress:
        drawn = pipeline.sample_symbols(
            options.n,
            labels,
            prompts=prompts or None,
            best_of=options.best_of,
            sampling=options.sampling,
            seed=options.seed,
            batch_size=options.batch_size,
            parallel=options.parallel,
            window=options.window or None,
            steps=options.steps or None,
            accelerator=accelerator,
            progress=progress,
        )
    if accelerator.is_main_process:
        images = pipeline.decode(drawn.symbols, "tensor", batch_size=options.batch_size)
        even = rows and options.n % rows == 0
        if is_png(output):
            save_image(image_grid(images, columns=options.n // rows if even else None), output)
        else:
            save_images(images, output)
    report: dict[str, Any] = {"output": str(options.output), "images": options.n, "seed": options.seed}
    if options.steps:
        report["steps"] = options.steps
    if drawn.evaluations is not None and drawn.positions is not None:
        report["evaluations"] = {
            "mean": drawn.evaluations.double().mean().item(),
            "most": int(drawn.evaluations.max()),
            "sequential": pipeline.model.grid.size,
            "positions": drawn.positions.double().mean().item(),
        }
    return report


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(sample, Sample, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
