"""The Inception flag: what it opens, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.evaluation import frechet
from pipeline.evaluation.inception import inception_distances, open_inception
from rasterwise.errors import InputError
from rasterwise.files import save_tensors


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    """A file that would be unpickled, one that is not there, and one of other weights."""
    with pytest.raises(InputError, match=r"no .safetensors file; convert them, since nothing here unpickles"):
        open_inception(tmp_path / "inception.pth")
    with pytest.raises(InputError, match=r"holds no inception.safetensors"):
        open_inception(tmp_path / "inception.safetensors")
    save_tensors({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not fit torchvision's inception_v3: "):
        open_inception(tmp_path / "other.safetensors")


def test_distances_with_weights_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's whole state opens, auxiliary classifier included; the floor is of the held-out images."""
    from torchvision.models import inception_v3

    path = tmp_path / "inception.safetensors"
    save_tensors(inception_v3(weights=None, init_weights=False).state_dict(), path)
    monkeypatch.setattr(frechet, "LEAST_IMAGES", 3)
    images = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    found = inception_distances(path, images, images, images.flip(0))
    assert found is not None
    assert found.images == 3
    assert found.drawn == pytest.approx(found.floor, abs=1e-6)
