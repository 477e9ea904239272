"""Augmentation: seeded, harmless to the random state, and off by default."""

from __future__ import annotations

import itertools

import pytest
import torch

from rasterwise.augmentation import Augmentation, augmented
from rasterwise.errors import InputError
from rasterwise.splits import tensor_split

IMAGES = torch.randint(256, (6, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TURNED = Augmentation(rotate=20, shear=5, shift=0.1, scale=0.2, flip=True)


def test_the_seed_decides_and_each_image_goes_its_own_way() -> None:
    """The same seed repeats, another differs; equal images become different ones; the random state stays."""
    before = torch.get_rng_state()
    assert torch.equal(TURNED(IMAGES, 1), TURNED(IMAGES, 1))
    assert not torch.equal(TURNED(IMAGES, 1), TURNED(IMAGES, 2))
    assert len({image.numpy().tobytes() for image in TURNED(IMAGES[:1].expand(6, -1, -1, -1), 1)}) > 3
    assert torch.equal(before, torch.get_rng_state())


def test_flip_mirrors_half_of_them() -> None:
    """Nothing else changes."""
    images = IMAGES[:1].expand(200, -1, -1, -1)
    mirrored = Augmentation(flip=True)(images, 0)
    flipped = (mirrored == images.flip(3)).flatten(1).all(1)
    assert ((mirrored == images).flatten(1).all(1) | flipped).all()
    assert 70 < int(flipped.sum()) < 130


def test_edges_are_filled() -> None:
    """With the grey value that was asked for."""
    shifted = Augmentation(shift=0.4, fill=255)(torch.zeros(20, 1, 10, 10, dtype=torch.uint8), 0)
    assert set(shifted.unique().tolist()) == {0, 255}


def test_a_split_is_augmented_at_random_reads_only() -> None:
    """Reading in order gives the images; a resumed stream gives what it would have given."""
    split = augmented(tensor_split(IMAGES), TURNED)
    assert torch.equal(next(split.ordered(6)).values, IMAGES)
    whole = [batch.values for batch in itertools.islice(split.shuffled(4, seed=0), 6)]
    resumed = [batch.values for batch in itertools.islice(split.shuffled(4, seed=0, start=3), 3)]
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    assert split.fingerprint != tensor_split(IMAGES).fingerprint
    plain = tensor_split(IMAGES)
    assert augmented(plain, Augmentation()) is plain


def test_impossible_settings_are_refused() -> None:
    """By name."""
    with pytest.raises(InputError, match="rotate"):
        Augmentation(rotate=-1)
    with pytest.raises(InputError, match="scale"):
        Augmentation(scale=1)
