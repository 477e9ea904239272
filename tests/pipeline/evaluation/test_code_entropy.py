"""Entropy of codes by position."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from accelerate import Accelerator

from pipeline.evaluation.code_entropy import code_entropies, position_entropy_nats
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.data.indexed import tensor_split
from rasterwise.tokenizers.pixels import PixelTokenizer


def test_entropies_of_known_codes() -> None:
    """Always the same code, one of two, of three unevenly, and all different ones, however large they are."""
    codes = torch.tensor([[7, 0, 1, 10**6], [7, 1, 1, 5], [7, 0, 2, 6], [7, 1, 3, 7]]).view(4, 2, 1, 2)
    found = position_entropy_nats(codes)
    assert found.shape == (2, 1, 2)
    uneven = math.log(2) / 2 + math.log(4) / 2
    expected = torch.tensor([0, math.log(2), uneven, math.log(4)], dtype=torch.float64)
    assert torch.allclose(found.flatten(), expected)


def test_as_many_images_of_both_splits() -> None:
    """And in batches what all at once gives."""
    train = torch.randint(4, (30, 1, 2, 2), dtype=torch.uint8)
    test = torch.randint(2, (10, 1, 2, 2), dtype=torch.uint8)
    data = dataclasses.replace(
        open_images(DataConfig()), train=tensor_split(train), test=tensor_split(test), shape=(1, 2, 2)
    )
    found = code_entropies(PixelTokenizer(), data, Accelerator(cpu=True), batch_size=4)
    assert found["images"] == 10
    for name, images in (("train", train[:10]), ("test", test)):
        expected = position_entropy_nats(images.long()).mean().item()
        assert found[f"{name}_nats"] == pytest.approx(expected)
    assert found["test_nats"] < math.log(2) < found["train_nats"]
