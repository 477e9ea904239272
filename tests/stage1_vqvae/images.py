"""Images to test tokenizers with."""

from __future__ import annotations

import torch
from torch import Tensor


def random_images(channels: int = 1, height: int = 16, width: int = 32, count: int = 4) -> Tensor:
    """uint8 ``(count, channels, height, width)``, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator)
