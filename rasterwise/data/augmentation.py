"""Random changes to training images: rotation, shear, shift, scale, flip, crop, brightness, contrast, saturation."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rasterwise.configuration import Angle, Decay, Share, configuration
from rasterwise.data.splits import Batch, Change, Split
from rasterwise.data.workers import BrokenImages


@configuration()
class Augmentation:
    """How much a training image may be changed at random. The default changes nothing.

    Attributes:
        rotate: Rotation, at most so many degrees either way.
        shear: Shear, at most so many degrees either way.
        shift: Shift in both directions, at most this share of the size.
        scale: Scaling, at most by this share up or down.
        flip: Mirror one image in two, left to right.
        crop: Pixels added at every edge before a piece of the image's own size is cut out at random.
        fill: Grey value, 0 to 255, of new pixels at the edges.
        brightness: Change of brightness, at most by this share up or down.
        contrast: Change of contrast, at most by this share up or down.
        saturation: Change of saturation, at most by this share up or down; grey images have none.

    Example:
        >>> import torch
        >>> images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
        >>> Augmentation(rotate=10, shift=0.1)(images, seed=0).shape
        torch.Size([2, 1, 8, 8])
    """

    rotate: Angle = 0.0
    shear: Angle = 0.0
    shift: Share = 0.0
    scale: Decay = 0.0
    flip: bool = False
    crop: Annotated[int, Field(ge=0, le=2**14)] = 0
    fill: Annotated[int, Field(ge=0, le=255)] = 0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return self.affine or self.flip or bool(self.crop) or self.photometric

    @property
    def affine(self) -> bool:
        """Whether an affine map moves pixels."""
        return bool(self.rotate or self.shear or self.shift or self.scale)

    @property
    def photometric(self) -> bool:
        """Whether the values of pixels are changed where they are."""
        return bool(self.brightness or self.contrast or self.saturation)

    def __call__(self, images: Tensor, seed: int, indices: Sequence[int] | None = None) -> Tensor:
        """Change each image in its own way, which depends on the seed and the image's index alone.

        Args:
            images: uint8 ``(B, C, H, W)``.
            seed: 0 or more.
            indices: One for each image, 0 or more; by default 0, 1, …

        Returns:
            uint8 ``(B, C, H, W)``.
        """
        indices = range(len(images)) if indices is None else indices
        return torch.stack(
            [
                self._changed(image, np.random.default_rng([seed, index]))
                for image, index in zip(images, indices, strict=True)
            ]
        )

    def _changed(self, image: Tensor, random: np.random.Generator) -> Tensor:
        # torchvision's random transforms draw from the global random state. A training run's draws must not depend
        # on the augmentation, so the parameters are drawn here.
        from torchvision.transforms.v2 import InterpolationMode, functional

        height, width = image.shape[-2:]
        if self.affine:
            image = functional.affine(
                image,
                angle=random.uniform(-self.rotate, self.rotate),
                translate=[round(random.uniform(-self.shift, self.shift) * side) for side in (width, height)],
                scale=random.uniform(1 - self.scale, 1 + self.scale),
                shear=[random.uniform(-self.shear, self.shear), 0.0],
                interpolation=InterpolationMode.BILINEAR,
                fill=[float(self.fill)],
            )
        if self.crop:
            padded = functional.pad(image, [self.crop], fill=self.fill)
            top, left = random.integers(0, 2 * self.crop + 1, 2).tolist()
            image = functional.crop(padded, top, left, height, width)
        if self.flip and random.random() < 0.5:
            image = functional.horizontal_flip(image)
        for share, adjusted in (
            (self.brightness, functional.adjust_brightness),
            (self.contrast, functional.adjust_contrast),
            (self.saturation, functional.adjust_saturation),
        ):
            if share:
                image = adjusted(image, random.uniform(1 - share, 1 + share))
        return image


@dataclass(frozen=True)
class AugmentedSplit:
    """A train split whose images are changed anew each time they are drawn.

    Attributes:
        split: The images.
        augmentation: How they are changed where they are shuffled; read in order, they stay as they are.
    """

    split: Split
    augmentation: Augmentation

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.split.fingerprint} {self.augmentation}".encode()).hexdigest()

    @property
    def length(self) -> int:
        return self.split.length

    @property
    def broken(self) -> BrokenImages:
        return self.split.broken

    def shuffled(
        self,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        change: Change | None = None,
    ) -> Iterator[Batch]:
        augment = functools.partial(_augment, self.augmentation, seed, change)
        return self.split.shuffled(batch_size, seed=seed, start=start, rank=rank, world=world, change=augment)

    def ordered(
        self, batch_size: int, *, rank: int = 0, world: int = 1, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        return self.split.ordered(batch_size, rank=rank, world=world, start=start, stop=stop)


def _augment(
    augmentation: Augmentation, seed: int, change: Change | None, images: Tensor, draws: list[int]
) -> Tensor:
    images = augmentation(images, seed, draws)
    return images if change is None else change(images, draws)


def augmented(split: Split, augmentation: Augmentation) -> Split:
    """The split with its augmentation, or the split itself where there is none."""
    return AugmentedSplit(split, augmentation) if augmentation.active else split
