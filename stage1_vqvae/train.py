"""Train a VQ-VAE: ``rasterwise train vqvae``, or ``python -m stage1_vqvae.train`` under torchrun or accelerate."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from rasterwise.augmentation import Augmentation, augmented
from rasterwise.command_line import run_command
from rasterwise.data import DataConfig, broken_pictures, open_images
from rasterwise.dry_run import dry_run
from rasterwise.images import picture_grid
from rasterwise.likelihoods import bits_per_dim
from rasterwise.metrics import Means, histogram_entropy_nats, psnr_db
from rasterwise.progress import Progress
from rasterwise.runs import RunFolder
from rasterwise.splits import Batch, Split
from rasterwise.training import Losses, Objective, TrainingConfig, start_accelerator, train
from stage1_vqvae.vqvae import VQVAE, Reconstruction, VQVAEConfig, to_unit

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


class VQVAEObjective(Objective):
    """Reconstruction error plus commitment.

    Args:
        model: The VQ-VAE; its configuration says which error.
    """

    model: VQVAE

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.model = model
        self.criterion = "mse" if model.config.likelihood == "mse" else "reconstruction_bits_per_dim"

    def forward(self, batch: Batch) -> Losses:
        images = batch.values
        reconstruction: Reconstruction = self.model(images, more_to_come=self.more_to_come)
        target = to_unit(images, self.model)
        seen = F.mse_loss(reconstruction.mean.detach().clamp(-1, 1), target)
        shown = {"psnr_db": -10 * torch.log10(seen / 4)}  # pictures span 2 from black to white
        if reconstruction.log_scale is None:
            error = F.mse_loss(reconstruction.mean, target)
        else:
            error = self.model.reconstruction_nats(images, reconstruction).mean() / images[0].numel()
            shown["reconstruction_nats_per_dim"] = error.detach()
        shown["commitment"] = reconstruction.commitment_loss.detach()
        return Losses(error + reconstruction.commitment_loss, shown)


@torch.no_grad()
def evaluate_vqvae(
    model: VQVAE, split: Split, accelerator: Accelerator, *, batch_size: int = 256
) -> dict[str, float]:
    """Metrics over a whole split: every image once, whatever the batch size and process count.

    Returns:
        psnr_db and mse (of uint8 pictures, the error pooled over all of them), codebook_usage (share of the
        codes that occur), codebook_perplexity (exp of the entropy of their histogram), items; with the
        logistic likelihood also reconstruction_bits_per_dim and elbo_bits_per_dim, the latter with a
        uniform prior over codes.
    """
    means = Means()
    histogram = torch.zeros(model.config.codebook_size, dtype=torch.float64, device=model.device)
    codes_an_image, subpixels = 0, 0
    for batch in split.ordered(batch_size, rank=accelerator.process_index, world=accelerator.num_processes):
        images = batch.values.to(model.device)
        reconstruction: Reconstruction = model(images)
        means.add(mse=(reconstruction.images.double() - images.double()).square().flatten(1).mean(1))
        if reconstruction.log_scale is not None:
            means.add(nats=model.reconstruction_nats(images, reconstruction))
        codes = reconstruction.codes.flatten()
        histogram += torch.bincount(codes, minlength=len(histogram))
        codes_an_image, subpixels = reconstruction.codes[0].numel(), images[0].numel()
    means.reduce(accelerator)
    histogram = accelerator.reduce(histogram, "sum")
    metrics = {
        "psnr_db": psnr_db(means.mean("mse")),
        "mse": means.mean("mse"),
        "codebook_usage": float((histogram > 0).double().mean()),
        "codebook_perplexity": math.exp(histogram_entropy_nats(histogram)),
        "items": means.count("mse"),
    }
    if model.config.likelihood == "logistic":
        nats = means.mean("nats")
        metrics["reconstruction_bits_per_dim"] = bits_per_dim(nats, subpixels)
        prior_nats = codes_an_image * math.log(model.config.codebook_size)
        metrics["elbo_bits_per_dim"] = bits_per_dim(nats + prior_nats, subpixels)
    return metrics


def reconstruction_picture(model: VQVAE, images: Tensor) -> Image.Image:
    """Images and, below each row of them, their reconstructions.

    Args:
        model: In evaluation mode.
        images: uint8 ``(B, C, H, W)``; B a multiple of 8 makes full rows.
    """
    reconstructed = model(images.to(model.device)).images.cpu()
    rows = [part for pair in zip(images.cpu().split(8), reconstructed.split(8), strict=True) for part in pair]
    return picture_grid(torch.cat(rows), columns=8)


def train_vqvae(options: TrainVQVAE) -> dict[str, Any]:
    """Run the command; returns the run's report."""
    accelerator = start_accelerator(options.training)
    main = accelerator.is_main_process
    with Progress("reading pictures", "picture", shown=main) as progress:
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
        draw=lambda model: reconstruction_picture(model, shown),
        card=f"Trained on `{options.data.dataset}`, images {'×'.join(map(str, data.shape))}.",
    )
    broken = {"broken_pictures": broken_pictures(data, accelerator)} if options.data.skip_broken else {}
    return {"output": str(options.output), **dataclasses.asdict(report), **broken}


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(train_vqvae, TrainVQVAE, arguments, program, resumes=COMMAND)


if __name__ == "__main__":
    sys.exit(main())
