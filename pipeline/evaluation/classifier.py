"""A small classifier that is trained on real images alone and then measures class-conditional samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasterwise.data.splits import Split
from rasterwise.errors import InputError

STEPS_AT_LEAST = 800
EPOCHS = 3
BATCH_SIZE = 128
LARGEST_SIDE = 32
"""Larger images are averaged down to this size: it is enough to tell classes apart, and bounds the cost."""


class Classifier(nn.Module):
    """A small convolutional classifier of uint8 images ``(B, C, H, W)``.

    Args:
        shape: (channels, height, width) of the images.
        classes: How many classes there are.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels = shape[0]
        height, width = self.size = (min(shape[1], LARGEST_SIDE), min(shape[2], LARGEST_SIDE))
        layers: list[nn.Module] = []
        for outputs in (32, 64, 128):
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            channels = outputs
            if min(height, width) >= 8:  # down to a map of 4 to 7 a side, which still shows where things are
                layers += [nn.MaxPool2d(2)]
                height, width = height // 2, width // 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.LazyLinear(classes))
        self(torch.zeros(2, *shape, dtype=torch.uint8))  # sets the input size of the last layer

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)``."""
        return self.layers(F.adaptive_avg_pool2d(images.float() / 127.5 - 1, self.size))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """The most probable class of each image, int64 ``(B,)`` on the CPU."""
        device = next(self.parameters()).device
        return torch.cat([self(part.to(device)).argmax(1).cpu() for part in images.split(512)])


def fit_classifier(
    split: Split,
    shape: tuple[int, int, int],
    classes: int,
    device: torch.device,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Classifier:
    """Train a classifier on a training split and on nothing else.

    Args:
        split: Images with labels.
        shape: (channels, height, width).
        classes: How many classes there are.
        device: Where to fit it.
        seed: Of the weights and the data order. The global random state is left as it was.
        progress: Called with (steps done, steps in all).

    Raises:
        InputError: The dataset has no classes.
    """
    if not classes:
        raise InputError("the dataset has no class labels; a classifier needs them")
    length = split.length or 0
    steps = max(STEPS_AT_LEAST, EPOCHS * length // BATCH_SIZE)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        classifier = Classifier(shape, classes).to(device)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
        batches = split.shuffled(BATCH_SIZE, seed=seed)
        for step in range(steps):
            batch = next(batches).to(device)
            assert batch.labels is not None
            F.cross_entropy(classifier(batch.values), batch.labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if progress:
                progress(step + 1, steps)
    return classifier.eval()


def classifier_accuracy(classifier: Classifier, split: Split) -> float:
    """The share of a split's images that are classified as their label says."""
    right = total = 0
    for batch in split.ordered(512):
        assert batch.labels is not None
        right += int((classifier.predict(batch.values) == batch.labels).sum())
        total += len(batch)
    return right / total
