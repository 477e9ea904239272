"""What every training command does with its task: train it, resume it, or measure what it would cost."""

from __future__ import annotations

import dataclasses
from typing import Any

from accelerate import Accelerator

from rasterwise.command_line.options import TrainingOptions
from rasterwise.command_line.statuses import SIGNALLED
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, image_counts, open_images
from rasterwise.errors import UnfinishedError
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
) -> dict[str, Any]:
    """Train a task in the output folder, resume the run that is there, or measure what it would cost.

    Args:
        options: The command's options, with everything that follows from the data filled in.
        command: The name of its runs in run.json.
        task: What is trained. Its images, if any, must not lie in the output folder, nor the other way round, and a
            run that is resumed must have had the same.
        accelerator: From ``start_accelerator``.

    Returns:
        The report of the training, of the run if it had ended before, or of the dry run.

    Raises:
        UnfinishedError: The training was asked to stop, and left a checkpoint to go on from.
        InputError: The folder holds something else, or a run with another configuration or other images.
    """
    if options.dry_run:
        return dry_run(options, task.objective, task.split, options.training, accelerator)
    main = accelerator.is_main_process
    origin = None if task.images is None else task.images.origin
    with RunFolder.claim(
        options.output, command, options, data=origin, force=options.force, main=main
    ) as run:
        accelerator.wait_for_everyone()
        if run.report:
            return {"output": str(run.path), **run.report}
        report = train(task, options.training, run, accelerator)
    reported = {
        "output": str(run.path),
        **dataclasses.asdict(report),
        **image_counts(task.images, accelerator),
    }
    if report.stopped:
        raise UnfinishedError(reported, SIGNALLED + (report.stop_signal or 0))
    return reported
