"""Entropy of codes by position: how much each place of the code grid says."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from pipeline.evaluation.frechet import REFERENCE_IMAGES
from rasterwise.data.dataset import ImageData
from rasterwise.tokenizers.image import ImageTokenizer


def position_entropy_nats(codes: Tensor) -> Tensor:
    """Entropy of the codes at every position.

    It is that of the frequencies found, which is too low for few images: of N images at most ln N. Only equal numbers
    of images compare.

    Args:
        codes: int64 ``(N, C, H, W)``.

    Returns:
        float64 ``(C, H, W)`` in nats.

    Example:
        >>> import torch
        >>> codes = torch.tensor([[0, 5], [1, 5], [0, 5], [1, 5]]).view(4, 1, 1, 2)
        >>> position_entropy_nats(codes)
        tensor([[[0.6931, 0.0000]]], dtype=torch.float64)
    """
    entropies = []
    for column in codes.flatten(1).T:
        # Only codes that occur are counted: a codebook can be far larger than the number of images.
        _, counts = column.unique(return_counts=True)
        entropies.append(torch.special.entr(counts.double() / len(column)).sum())
    return torch.stack(entropies).view(codes.shape[1:])


@torch.no_grad()
def code_entropies(
    tokenizer: ImageTokenizer, data: ImageData, accelerator: Accelerator, batch_size: int = 128
) -> dict[str, float]:
    """Mean over positions of the entropy of their codes, in as many training images as test ones.

    Returns:
        train_nats and test_nats, a code; images: how many of each.
    """
    count = min(REFERENCE_IMAGES, data.train.length, data.test.length)
    rank, world = accelerator.process_index, accelerator.num_processes
    found = {"images": float(count)}
    for name, split in (("train", data.train), ("test", data.test)):
        batches = split.ordered(batch_size, rank=rank, world=world, stop=count)
        codes = [tokenizer.encode(batch.values.to(tokenizer.device)).cpu() for batch in batches]
        found[f"{name}_nats"] = float(position_entropy_nats(torch.cat(gather_object(codes))).mean())
    return found
