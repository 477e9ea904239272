"""A light convolutional encoder and decoder."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from rasterwise.configuration import Depth, configuration
from stage1_vqvae.autoencoders.autoencoder import AutoencoderConfig, ImageDecoder, check_size


@configuration()
class ConvolutionalConfig(AutoencoderConfig):
    """Strided convolutions, and residual blocks at the code grid.

    Attributes:
        kind: The autoencoder's name.
        width: Channels of the convolutions at the code grid; half as many at full resolution.
        blocks: Residual blocks in the encoder, and in the decoder.
    """

    kind: Annotated[Literal["convolutional"], tyro.conf.Suppress] = "convolutional"
    width: Annotated[int, Field(multiple_of=16, ge=16, le=2**16)] = 128
    blocks: Depth = 2

    def widths(self, factor: int) -> list[int]:
        """Channels at each resolution, the highest first."""
        return [self.width // 2] + [self.width] * (factor.bit_length() - 1)

    def build_encoder(self, channels: int, factor: int, latent_width: int) -> Encoder:
        return Encoder(channels, self.widths(factor), self.blocks, latent_width)

    def build_decoder(self, outputs: int, factor: int, code_width: int) -> Decoder:
        return Decoder(outputs, self.widths(factor), self.blocks, code_width)


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

    Args:
        channels: Of the images.
        widths: Channels at each resolution, the highest first; each is half as high and wide as the one before it.
        blocks: Residual blocks at the last resolution.
        code_width: D.

    References:
        van den Oord et al., Neural Discrete Representation Learning, 2017 (arXiv 1711.00937), section 4.1.
        Normalisation and SiLU in the residual blocks are later practice (Esser et al., 2020, arXiv 2012.09841).
    """

    def __init__(self, channels: int, widths: list[int], blocks: int, code_width: int) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        for wide, wider in pairwise(widths):
            layers += [nn.SiLU(), nn.Conv2d(wide, wider, 4, stride=2, padding=1)]
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        layers += [_norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], code_width, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images, self.factor)
        return self.layers(images)


class Decoder(ImageDecoder):
    """Latents ``(B, D, h, w)`` to ``(B, out, h·f, w·f)``: the encoder mirrored."""

    def __init__(self, outputs: int, widths: list[int], blocks: int, code_width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(code_width, widths[-1], 3, padding=1)]
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        for wider, wide in pairwise(reversed(widths)):
            layers += [nn.SiLU(), nn.ConvTranspose2d(wider, wide, 4, stride=2, padding=1)]
        layers += [nn.SiLU(), nn.Conv2d(widths[0], outputs, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    @property
    def last_weight(self) -> nn.Parameter:
        return self.layers[-1].get_parameter("weight")

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(8, width), width)
