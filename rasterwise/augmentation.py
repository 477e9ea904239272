"""More pictures from few: small random turns, shears, shifts and scalings of training images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.splits import Batch, Split


@dataclass(frozen=True)
class Augmentation:
    """How far a training image may be changed at random. The default changes nothing.

    Attributes:
        rotate: Degrees, either way.
        shear: Degrees, either way.
        shift: Share of the size, either way in both directions.
        scale: Share by which it may grow or shrink.
        flip: Mirror one image in two, left to right.
        fill: Grey value, 0 to 255, of what comes in at the edges.

    Example:
        >>> images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
        >>> Augmentation(rotate=10, shift=0.1)(images, seed=0).shape
        torch.Size([2, 1, 8, 8])
    """

    rotate: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    flip: bool = False
    fill: int = 0

    def __post_init__(self) -> None:
        for name in ("rotate", "shear", "shift"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 (off) or more")
        if not 0 <= self.scale < 1:
            raise InputError(f"scale is {self.scale}, expected at least 0 (off) and below 1")

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return bool(self.rotate or self.shear or self.shift or self.scale or self.flip)

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Change each of the uint8 images ``(B, C, H, W)`` in its own way; the seed decides how."""
        from torchvision.transforms import v2

        change = v2.Compose(
            [
                v2.RandomAffine(
                    degrees=self.rotate,
                    translate=(self.shift, self.shift),
                    scale=(1 - self.scale, 1 + self.scale),
                    shear=self.shear,
                    interpolation=v2.InterpolationMode.BILINEAR,
                    fill=self.fill,
                ),
                v2.RandomHorizontalFlip(0.5 if self.flip else 0.0),
            ]
        )
        # torchvision draws from the global random state; that of a training run must not depend on it.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.stack([change(image) for image in images])


@dataclass(frozen=True)
class AugmentedSplit:
    """A train split whose images are changed anew each time they are drawn at random.

    Attributes:
        split: The images.
        augmentation: How they are changed; read in order they are not.
    """

    split: Split
    augmentation: Augmentation

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.split.fingerprint} {self.augmentation}".encode()).hexdigest()

    @property
    def length(self) -> int | None:
        return self.split.length

    def shuffled(
        self, batch_size: int, *, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        batches = self.split.shuffled(batch_size, seed=seed, start=start, rank=rank, world=world)
        for step, batch in enumerate(batches, start):
            yield Batch(self.augmentation(batch.values, seed=hash((seed, step, rank))), batch.labels)

    def ordered(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        return self.split.ordered(batch_size, rank=rank, world=world)


def augmented(split: Split, augmentation: Augmentation) -> Split:
    """The split with its augmentation, or the split itself where there is none."""
    return AugmentedSplit(split, augmentation) if augmentation.active else split
