"""How good a learned tokenizer is."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from rasterwise.data.splits import Split
from rasterwise.images import image_grid
from rasterwise.measure.metrics import Means, histogram_entropy_nats, psnr_db
from rasterwise.symbols.likelihoods import bits_per_dim
from stage1_vqvae.reconstruction import Reconstruction
from stage1_vqvae.tokenizers.vqvae import VQVAE


@torch.no_grad()
def evaluate_vqvae(
    model: VQVAE, split: Split, accelerator: Accelerator, *, batch_size: int = 256
) -> dict[str, float]:
    """Metrics over a whole split: every image once, whatever the batch size and process count.

    Returns:
        psnr_db and mse (of uint8 images, the error pooled over all of them), codebook_usage (share of the
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


def reconstruction_image(model: VQVAE, images: Tensor) -> Image.Image:
    """Images and, below each row of them, their reconstructions.

    Args:
        model: In evaluation mode.
        images: uint8 ``(B, C, H, W)``; B a multiple of 8 makes full rows.
    """
    reconstructed = model(images.to(model.device)).images.cpu()
    rows = [part for pair in zip(images.cpu().split(8), reconstructed.split(8), strict=True) for part in pair]
    return image_grid(torch.cat(rows), columns=8)
