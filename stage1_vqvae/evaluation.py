"""How good a learned tokenizer is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from rasterwise.data.splits import Split
from rasterwise.images import image_grid
from rasterwise.measure.metrics import Means, histogram_entropy_nats, psnr_db
from rasterwise.symbols.likelihoods import bits_per_dim
from rasterwise.tokenizers.image import ImageTokenizer

Similarity = Callable[[Tensor, Tensor], Tensor]
"""uint8 images ``(B, C, H, W)`` and their reconstructions to a number of each, ``(B,)``."""


@torch.no_grad()
def evaluate_tokenizer(
    tokenizer: ImageTokenizer,
    split: Split,
    shape: tuple[int, int, int],
    accelerator: Accelerator,
    *,
    batch_size: int = 256,
    similarities: Mapping[str, Similarity] = MappingProxyType({}),
) -> dict[str, float]:
    """Metrics over a whole split: every image once, whatever the batch size and process count.

    Args:
        tokenizer: In evaluation mode.
        split: Images.
        shape: Of an image, ``(C, H, W)``.
        accelerator: All processes call this and share the images.
        batch_size: Images at once in each process.
        similarities: Further measures of images and their reconstructions, by their names in the metrics.

    Returns:
        psnr_db and mse (of uint8 images, the error pooled over all of them), codebook_usage (share of the
        codes that occur), codebook_perplexity (exp of the entropy of their histogram; of several codebooks,
        the geometric mean), both for each of two grids as well (top_codebook_usage and so on), items; where the
        tokenizer has a likelihood of images also
        reconstruction_bits_per_dim and elbo_bits_per_dim, the latter with a uniform prior over codes; and the mean
        of each similarity.
    """
    grid, subpixels = tokenizer.grid(*shape), math.prod(shape)
    means = Means()
    names = list(tokenizer.grids_of(torch.zeros(1, *grid.shape)))
    histogram = torch.zeros(
        len(names), grid.channels, grid.levels, dtype=torch.float64, device=tokenizer.device
    )
    for batch in split.ordered(batch_size, rank=accelerator.process_index, world=accelerator.num_processes):
        images = batch.values.to(tokenizer.device)
        reconstructed = tokenizer.reconstruct(images)
        means.add(mse=(reconstructed.images.double() - images.double()).square().flatten(1).mean(1))
        means.add(**{name: measure(images, reconstructed.images) for name, measure in similarities.items()})
        if reconstructed.nats is not None:
            means.add(nats=reconstructed.nats)
        grids = tokenizer.grids_of(reconstructed.symbols).values()
        for of_grid, part in zip(histogram, grids, strict=True):
            for counts, codes in zip(of_grid, part.unbind(1), strict=True):
                counts += torch.bincount(codes.flatten(), minlength=grid.levels)
    means.reduce(accelerator)
    histogram = accelerator.reduce(histogram, "sum")
    metrics = {
        "psnr_db": psnr_db(means.mean("mse")),
        "mse": means.mean("mse"),
        **{name: means.mean(name) for name in similarities},
        **_codebook_metrics(histogram.flatten(0, 1)),
        "items": means.count("mse"),
    }
    for name, of_grid in zip(names, histogram, strict=True):
        if name:
            metrics |= _codebook_metrics(of_grid, f"{name}_")
    if "nats" in means:
        nats = means.mean("nats")
        metrics["reconstruction_bits_per_dim"] = bits_per_dim(nats, subpixels)
        metrics["elbo_bits_per_dim"] = bits_per_dim(nats + grid.size * math.log(grid.levels), subpixels)
    return metrics


def _codebook_metrics(histograms: Tensor, prefix: str = "") -> dict[str, float]:
    """Usage and perplexity of histograms of codes, ``(n, K)``."""
    entropies = [histogram_entropy_nats(counts) for counts in histograms]
    return {
        f"{prefix}codebook_usage": float((histograms > 0).double().mean()),
        f"{prefix}codebook_perplexity": math.exp(sum(entropies) / len(entropies)),
    }


def reconstruction_image(tokenizer: ImageTokenizer, images: Tensor) -> Image.Image:
    """Images and, below each row of them, their reconstructions.

    Args:
        tokenizer: In evaluation mode.
        images: uint8 ``(B, C, H, W)``; B a multiple of 8 makes full rows.
    """
    reconstructed = tokenizer.reconstruct(images.to(tokenizer.device)).images.cpu()
    rows = [part for pair in zip(images.cpu().split(8), reconstructed.split(8), strict=True) for part in pair]
    return image_grid(torch.cat(rows), columns=8)
