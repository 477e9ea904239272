"""Train a VQ-VAE: ``rasterwise train vqvae``, or ``python -m stage1_vqvae.train`` under torchrun or accelerate."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasterwise.command_line.run import run_command
from rasterwise.data.augmentation import Augmentation, augmented
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import broken_images, open_images
from rasterwise.progress import Progress
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.dry_run import dry_run
from rasterwise.training.loop import train
from rasterwise.training.run.run_folder import RunFolder
from stage1_vqvae.evaluation import evaluate_vqvae, reconstruction_image
from stage1_vqvae.objective import VQVAEObjective
from stage1_vqvae.tokenizers.vqvae import VQVAE, VQVAEConfig

COMMAND = "train vqvae"
"""The name of its runs in run.json."""


@dataclass(frozen=True)
class TrainVQVAE:
    """Train a VQ-VAE on a dataset of images.

    Attributes:
        output: The run's folder; its model/ is the trained VQ-VAE.
        data: The images.
        augmentation: How training images are changed at random.
        model: The VQ-VAE.
        training: How it is trained.
        resume: Go on with the run in this folder, as it was configured: nothing else needs to be given, and what
            is given must agree with it. The same command again does the same.
        dry_run: Print the resolved configuration, the parameters, the FLOPs of a step and the memory that it takes,
            and write nothing.
        force: Delete a run that is in the output folder and start anew.
        json: Print the report as JSON.
    """

    output: Path = Path("runs/vqvae")
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=2000, learning_rate=1e-3, ema_decay=0.99)
    )
    resume: Path | None = None
    dry_run: bool = False
    force: bool = False
    json: bool = False


def train_vqvae(options: TrainVQVAE) -> dict[str, Any]:
    """Run the command; returns the run's report."""
    accelerator = start_accelerator(options.training)
    main = accelerator.is_main_process
    with Progress("reading images", "image", shown=main) as progress:
        data = open_images(options.data, progress)
    config = dataclasses.replace(options.model, channels=data.shape[0])
    model = VQVAE(config)
    model.grid(*data.shape)
    model.trained_on = dataclasses.asdict(options.data)
    options = dataclasses.replace(options, model=config)
    objective, train_split = VQVAEObjective(model), augmented(data.train, options.augmentation)
    if options.dry_run:
        return dry_run(options, objective, train_split, options.training, accelerator)
    run = RunFolder.claim(options.output, COMMAND, options, force=options.force, main=main)
    accelerator.wait_for_everyone()
    if run.report:
        return run.report
    shown = next(iter(data.test.ordered(32))).values
    report = train(
        objective,
        train_split,
        options.training,
        run,
        accelerator,
        evaluate=lambda model, accelerator: evaluate_vqvae(model, data.test, accelerator),
        draw=lambda model: reconstruction_image(model, shown),
        card=f"Trained on `{options.data.dataset}`, images {'×'.join(map(str, data.shape))}.",
    )
    broken = {"broken_images": broken_images(data, accelerator)} if options.data.skip_broken else {}
    return {"output": str(options.output), **dataclasses.asdict(report), **broken}


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(train_vqvae, TrainVQVAE, arguments, program, resumes=COMMAND)


if __name__ == "__main__":
    sys.exit(main())
