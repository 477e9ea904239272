"""The convolutional encoder and decoder around the codebook."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv1×1(silu(norm(conv3×3(silu(norm(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = _norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = _norm(width)
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(hidden)))


class Encoder(nn.Module):
    """Images ``(B, C, H, W)`` to latents ``(B, D, H/f, W/f)``: strided convolutions, then residual blocks.

    References:
        van den Oord et al., Neural Discrete Representation Learning, 2017 (arXiv 1711.00937), section 4.1.
        Normalisation and SiLU in the residual blocks are later practice (Esser et al., 2020, arXiv 2012.09841).
    """

    def __init__(self, channels: int, widths: list[int], blocks: int, code_width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        for wide, wider in pairwise(widths):
            layers += [nn.SiLU(), nn.Conv2d(wide, wider, 4, stride=2, padding=1)]
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        layers += [_norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], code_width, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Decoder(nn.Module):
    """Latents ``(B, D, h, w)`` to ``(B, out, h·f, w·f)``: the encoder mirrored."""

    def __init__(self, outputs: int, widths: list[int], blocks: int, code_width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(code_width, widths[-1], 3, padding=1)]
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        for wider, wide in pairwise(reversed(widths)):
            layers += [nn.SiLU(), nn.ConvTranspose2d(wider, wide, 4, stride=2, padding=1)]
        layers += [nn.SiLU(), nn.Conv2d(widths[0], outputs, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(8, width), width)
