"""What every training command does with its task: train it, resume it, or measure what it would cost."""

from __future__ import annotations

import dataclasses
from typing import Any

from accelerate import Accelerator

from rasterwise.command_line.options import TrainingOptions
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, broken_images, open_images
from rasterwise.progress import Progress
from rasterwise.training.dry_run import dry_run
from rasterwise.training.loop import train
from rasterwise.training.objective import TrainingTask
from rasterwise.training.run.run_folder import RunFolder


def read_images(config: DataConfig, accelerator: Accelerator) -> ImageData:
    """Open a dataset of images; the main process shows the progress."""
    with Progress("reading images", "image", shown=accelerator.is_main_process) as progress:
        return open_images(config, progress)


def run_training(
    options: TrainingOptions,
    command: str,
    task: TrainingTask,
    accelerator: Accelerator,
    *,
    images: ImageData | None = None,
) -> dict[str, Any]:
    """Train a task in the output folder, resume the run that is there, or measure what it would cost.

    Args:
        options: The command's options, with everything that follows from the data filled in.
        command: The name of its runs in run.json.
        task: What is trained.
        accelerator: From ``start_accelerator``.
        images: The images, whose broken ones the report then counts; None where none are skipped.

    Returns:
        The report of the training, of the run if it had ended before, or of the dry run.

    Raises:
        InputError: The folder holds something else, or a run with another configuration.
    """
    if options.dry_run:
        return dry_run(options, task.objective, task.split, options.training, accelerator)
    main = accelerator.is_main_process
    run = RunFolder.claim(options.output, command, options, force=options.force, main=main)
    accelerator.wait_for_everyone()
    if run.report:
        return {"output": str(run.path), **run.report}
    report = train(task, options.training, run, accelerator)
    broken = {} if images is None else {"broken_images": broken_images(images, accelerator)}
    return {"output": str(run.path), **dataclasses.asdict(report), **broken}
