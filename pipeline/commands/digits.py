"""Both stages on digits: what ``rasterwise quickstart`` trains, draws and measures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from pipeline.commands.train import train_prior_with_images
from pipeline.evaluation.pipeline import evaluate_pipeline
from pipeline.image_pipeline import ImagePipeline
from rasterwise.codes.encode import encode_dataset
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.dataset import open_images
from rasterwise.images import save_image
from rasterwise.progress import Progress
from rasterwise.training.autoregressive import sample_image
from stage1_vqvae import VQVAE
from stage1_vqvae.evaluation import reconstruction_image
from stage1_vqvae.recipes import vqvae_recipe
from stage1_vqvae.train import train_vqvae
from stage2_prior.recipes import prior_recipe

AUGMENTATION = Augmentation(rotate=10, shear=8, shift=0.06, scale=0.1)
COPIES = 20


def make_digits(output: Path) -> dict[str, Any]:
    """Train both stages on digits, draw some and measure them.

    Args:
        output: The folder for everything. Stages that it holds already are not trained again.

    Returns:
        The report, or None where a training was stopped.
    """
    began = time.monotonic()
    stages = vqvae_recipe(output / "vqvae")
    data = open_images(stages.data)
    with Progress("quickstart") as progress:
        progress.line(f"1/4 training a VQ-VAE on {data.train.length} digits")
        stage1 = train_vqvae(stages)
        progress.line(f"2/4 encoding them, and {COPIES} augmented copies of each")
        vqvae = VQVAE.from_pretrained(stages.output)
        codes = encode_dataset(
            vqvae, data, output / "codes", copies=COPIES, augmentation=AUGMENTATION, progress=progress
        )
        progress.line("3/4 training a transformer prior on the codes")
        stage2 = train_prior_with_images(prior_recipe(codes.folder, output / "prior"))
        progress.line("4/4 drawing digits, and measuring them with a classifier trained on real ones")
    pipeline = ImagePipeline.from_pretrained(output / "prior")
    measured = evaluate_pipeline(pipeline, data)
    with torch.no_grad():
        save_image(sample_image(pipeline.model, pipeline.tokenizer.decode), output / "samples.png")
        shown = next(iter(data.test.ordered(32))).values
        save_image(reconstruction_image(vqvae, shown), output / "reconstructions.png")
    return {
        "samples_image": str(output / "samples.png"),
        "reconstructions_image": str(output / "reconstructions.png"),
        "pipeline": str(output / "prior"),
        **measured,
        "seconds": {
            "vqvae": stage1["seconds"],
            "prior": stage2["seconds"],
            "in_all": round(time.monotonic() - began, 1),
        },
        "device": stage1["device"],
    }
