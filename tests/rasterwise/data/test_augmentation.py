"""Augmentation: seeded, harmless to the random state, and off by default."""

from __future__ import annotations

import itertools

import pytest
import torch

from rasterwise.data.augmentation import Augmentation, augmented
from rasterwise.data.indexed import tensor_split
from rasterwise.errors import InputError

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


def test_an_image_changes_by_its_number_alone() -> None:
    """Whatever batch it comes in."""
    every = Augmentation(rotate=20, crop=2, flip=True, brightness=0.3, contrast=0.3, saturation=0.3)
    whole = every(IMAGES, 7, range(40, 46))
    assert torch.equal(every(IMAGES[3:5], 7, [43, 44]), whole[3:5])
    assert not torch.equal(every(IMAGES[3:5], 7, [3, 4]), whole[3:5])


def test_a_crop_is_a_piece_of_the_padded_image() -> None:
    """Every place comes up, the image itself among them, and nothing else changes."""
    image = IMAGES[:1, :, :4, :4]
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), value=9)
    positions = {padded[0, :, y : y + 4, x : x + 4].numpy().tobytes() for y in range(3) for x in range(3)}
    cropped = Augmentation(crop=1, fill=9)(image.expand(200, -1, -1, -1), 0)
    assert {image.numpy().tobytes() for image in cropped} == positions


def test_light_and_colour() -> None:
    """Brightness scales all values alike, contrast keeps their mean, saturation keeps greys as they are."""
    grey = torch.full((50, 3, 4, 4), 100, dtype=torch.uint8)
    brighter = Augmentation(brightness=0.5)(grey, 0).flatten(1)
    assert (brighter == brighter[:, :1]).all()
    assert brighter.min() < 75
    assert brighter.max() > 125
    assert (brighter >= 50).all()
    assert (brighter <= 150).all()
    halves = torch.tensor([80, 120], dtype=torch.uint8).repeat(50, 1, 4, 2)
    contrasted = Augmentation(contrast=0.5)(halves, 0).float()
    assert (contrasted.mean((1, 2, 3)) - 100).abs().max() <= 1
    assert contrasted.std((1, 2, 3)).max() > 1.3 * contrasted.std((1, 2, 3)).min()
    assert (Augmentation(saturation=1.0)(grey, 0).int() - 100).abs().max() <= 1
    coloured = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1).expand(50, 3, 4, 4)
    spread = Augmentation(saturation=1.0)(coloured, 0).float().std(1)
    assert spread.min() < 40
    assert spread.max() > 80


@pytest.mark.parametrize(
    "change",
    [
        {"crop": 1},
        {"brightness": 0.1},
        {"contrast": 0.1},
        {"saturation": 0.1},
        {"flip": True},
        {"scale": 0.1},
    ],
)
def test_each_part_makes_it_active(change: dict[str, float]) -> None:
    """And none of them is on by default."""
    assert Augmentation(**change).active  # type: ignore[arg-type]
    assert not Augmentation().active


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_who_augments_changes_nothing() -> None:
    """Workers, processes and epochs: an image's change goes by the seed and its draw alone."""
    split = augmented(tensor_split(IMAGES, workers=2), TURNED)
    whole = [
        batch.values
        for batch in itertools.islice(augmented(tensor_split(IMAGES), TURNED).shuffled(4, seed=0), 6)
    ]
    for world in (1, 2):
        for rank in range(world):
            parts = itertools.islice(split.shuffled(4, seed=0, rank=rank, world=world), 6)
            assert all(torch.equal(a[rank::world], b.values) for a, b in zip(whole, parts, strict=True))
    epochs = [next(split.shuffled(6, seed=0, start=epoch)).values.flatten(1) for epoch in range(2)]
    assert not torch.equal(*(epoch.sort(0).values for epoch in epochs))


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
    with pytest.raises(InputError, match="saturation"):
        Augmentation(saturation=1.5)
    with pytest.raises(InputError, match="fill"):
        Augmentation(fill=256)
