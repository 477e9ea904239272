"""What a learned tokenizer's reconstructions and codes are worth, on images that it was not trained on."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from pipeline.evaluation.code_entropy import code_entropies
from pipeline.evaluation.frechet import LEAST_IMAGES, frechet_distance
from pipeline.evaluation.inception import inception_features
from pipeline.evaluation.network_features import BATCH, network_features, scaled_for
from pipeline.evaluation.precision_recall import precision_recall
from pipeline.evaluation.ssim import WINDOW, structural_similarity
from rasterwise.data.dataset import ImageData
from rasterwise.errors import InputError
from rasterwise.measure.frozen_network import FrozenNetwork, perceptual_distance
from rasterwise.measure.pretrained_networks import DISTANCE_NETWORK, open_frozen_network
from rasterwise.progress import Progress
from rasterwise.tokenizers.image import ImageTokenizer
from stage1_vqvae.evaluation import evaluate_tokenizer


def evaluate_reconstruction(
    tokenizer: ImageTokenizer,
    data: ImageData,
    batch_size: int = 128,
    distance_images: int = 1000,
    inception: nn.Module | None = None,
) -> dict[str, Any]:
    """All metrics of a tokenizer.

    Args:
        tokenizer: In evaluation mode.
        data: The test split is measured; some metrics compare with the train split.
        batch_size: Images at once.
        distance_images: How many test images ``reconstruction_distances`` takes; 0 leaves it out.
        inception: Measure distances in the features of this network too, see ``open_inception``.

    Returns:
        What ``evaluate_tokenizer`` gives, and ssim, where images are large enough for it; position_entropy: see
        ``code_entropies``; distances: see ``reconstruction_distances``, with the network's name, or what to install
        where there is none; and inception_distances, see ``inception_distances_of``.

    Raises:
        InputError: The tokenizer's symbols are not codes.
    """
    if tokenizer.symbols != "codes":
        raise InputError(
            f"a tokenizer of kind {tokenizer.kind!r} has no reconstruction to measure; give a VQ-VAE"
        )
    accelerator = Accelerator(cpu=tokenizer.device.type == "cpu")
    report: dict[str, Any] = evaluate_tokenizer(
        tokenizer,
        data.test,
        data.shape,
        accelerator,
        batch_size=batch_size,
        similarities={"ssim": structural_similarity} if min(data.shape[1:]) >= WINDOW else {},
    )
    report["position_entropy"] = code_entropies(tokenizer, data, accelerator, batch_size)
    if distance_images:
        try:
            network = open_frozen_network(DISTANCE_NETWORK).to(tokenizer.device)
        except InputError as error:
            report["distances"] = {"not_measured": str(error)}
        else:
            found = reconstruction_distances(tokenizer, data, network, accelerator, images=distance_images)
            report["distances"] = {"network": network.name, **found}
    if distance_images and inception is not None:
        report["inception_distances"] = inception_distances_of(
            tokenizer, data, inception.to(tokenizer.device), accelerator, images=distance_images
        )
    return report


@torch.no_grad()
def reconstruction_distances(
    tokenizer: ImageTokenizer,
    data: ImageData,
    network: FrozenNetwork,
    accelerator: Accelerator,
    *,
    images: int = 1000,
) -> dict[str, float]:
    """Distances of the first test images to their reconstructions, and to as many training images.

    Distances and shares depend on how many images there are: only equal numbers compare.

    Args:
        tokenizer: In evaluation mode.
        data: Both splits are used.
        network: Whose features are taken: not the one that a perceptual loss was trained in.
        accelerator: All processes call this and share the images.
        images: How many test images, if there are as many in both splits.

    Returns:
        perceptual_distance (mean over images; see ``perceptual_distance``); of 16 images or more also
        frechet_distance (of reconstructions to their originals) beside frechet_distance_of_train_images (of as many
        training images to the same originals: real against real), precision and recall (of reconstructions among
        originals); images.
    """
    count = min(images, data.test.length, data.train.length)
    rank, world = accelerator.process_index, accelerator.num_processes
    apart: list[Tensor] = []
    features: dict[str, list[Tensor]] = {"originals": [], "reconstructions": [], "train": []}
    done = 0
    with Progress("measuring reconstructions", "image", shown=accelerator.is_main_process) as progress:
        for batch in data.test.ordered(BATCH, rank=rank, world=world, stop=count):
            originals = batch.values.to(tokenizer.device)
            reconstructions = tokenizer.reconstruct(originals).images
            one, other = (network(scaled_for(network, part)) for part in (originals, reconstructions))
            apart.append(perceptual_distance(one.maps, other.maps))
            features["originals"].append(one.pooled)
            features["reconstructions"].append(other.pooled)
            done += 2 * len(batch) * world
            progress(done, 3 * count)
        for batch in data.train.ordered(BATCH, rank=rank, world=world, stop=count):
            features["train"].append(network_features(network, batch.values))
            done += len(batch) * world
            progress(min(done, 3 * count), 3 * count)
    distance = _of_all_processes(apart)
    found = {"images": len(distance), "perceptual_distance": float(distance.mean())}
    return found | _overlap(*map(_of_all_processes, features.values()))


@torch.no_grad()
def inception_distances_of(
    tokenizer: ImageTokenizer,
    data: ImageData,
    network: nn.Module,
    accelerator: Accelerator,
    *,
    images: int = 1000,
) -> dict[str, float]:
    """As ``reconstruction_distances``, in the features of torchvision's Inception, and without a perceptual distance.

    That network is not the one that FID is defined by, and neither are its numbers.
    """
    count = min(images, data.test.length, data.train.length)
    rank, world = accelerator.process_index, accelerator.num_processes
    features: dict[str, list[Tensor]] = {"originals": [], "reconstructions": [], "train": []}
    for batch in data.test.ordered(BATCH, rank=rank, world=world, stop=count):
        originals = batch.values.to(tokenizer.device)
        features["originals"].append(inception_features(network, originals))
        features["reconstructions"].append(
            inception_features(network, tokenizer.reconstruct(originals).images)
        )
    for batch in data.train.ordered(BATCH, rank=rank, world=world, stop=count):
        features["train"].append(inception_features(network, batch.values.to(tokenizer.device)))
    return {"images": count, **_overlap(*map(_of_all_processes, features.values()))}


def _overlap(originals: Tensor, reconstructions: Tensor, train: Tensor) -> dict[str, float]:
    """How features ``(N, D)`` of reconstructions lie to those of originals; nothing where there are few."""
    if len(originals) < LEAST_IMAGES:
        return {}
    shares = precision_recall(originals, reconstructions)
    return {
        "frechet_distance": frechet_distance(reconstructions, originals),
        "frechet_distance_of_train_images": frechet_distance(train, originals),
        "precision": shares.precision,
        "recall": shares.recall,
    }


def _of_all_processes(parts: list[Tensor]) -> Tensor:
    """What all processes have found, float64 on the CPU, in any order."""
    here = [part.double().cpu() for part in parts]
    return torch.cat(gather_object(here))
