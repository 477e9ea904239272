"""The convolutional encoder and decoder of VQGAN, with attention at the code grid."""

from __future__ import annotations

from dataclasses import field
from itertools import pairwise
from typing import Annotated, Literal

import torch.nn.functional as F
import tyro
from pydantic import Field
from torch import Tensor, nn

from rasterwise.configuration import LATER, Depth, WidthOrZero, configuration
from rasterwise.errors import InputError
from stage1_vqvae.autoencoders.autoencoder import AutoencoderConfig, ImageDecoder, check_size

MULTIPLIERS = {2: (1, 2), 4: (1, 2, 4), 8: (1, 2, 2, 4), 16: (1, 1, 2, 2, 4)}
"""Widths at each resolution in units of the first one, by factor, as published models have them."""


@configuration()
class AttentionConfig(AutoencoderConfig):
    """Residual blocks at every resolution, and attention at the code grid.

    The defaults suit small images on a CPU; VQGAN has width 128, 2 blocks and a bottleneck of 256.

    Attributes:
        kind: The autoencoder's name.
        width: Channels at full resolution.
        multipliers: Channels at each resolution, the highest first, in units of the width; none: by the factor.
        blocks: Residual blocks at each resolution of the encoder; the decoder has one more.
        bottleneck: Channels between each network and its projection to or from the quantizer's latents; 0: as many
            as the residual blocks at the code grid have.
        attention: Where it is: "grid", after each block at the code grid and in the middle; "middle", there
            alone: between the last two blocks of the encoder, and the first two of the decoder; or "none".
        groups: Of each norm; 0: 32, or a quarter of the channels where these are fewer.
        pixel_range: What the networks take and give: "signed", [-1, 1]; or "unit", [0, 1], as some that others
            trained do.
    """

    kind: Annotated[Literal["attention"], tyro.conf.Suppress] = "attention"
    width: Annotated[int, Field(multiple_of=32, ge=32, le=2**16)] = 32
    multipliers: tuple[Depth, ...] = ()
    blocks: Depth = 1
    bottleneck: WidthOrZero = 0
    attention: Literal["grid", "middle", "none"] = "grid"
    groups: Annotated[WidthOrZero, tyro.conf.Suppress] = field(default=0, metadata=LATER)
    pixel_range: Annotated[Literal["signed", "unit"], tyro.conf.Suppress] = field(
        default="signed", metadata=LATER
    )

    def __post_init__(self) -> None:
        if self.groups and self.width % self.groups:
            raise InputError(f"groups is {self.groups}, expected a divisor of width {self.width}")

    def widths(self, factor: int) -> list[int]:
        """Channels at each resolution, the highest first.

        Raises:
            InputError: There are not as many multipliers as resolutions.
        """
        multipliers = self.multipliers or MULTIPLIERS[factor]
        if 2 ** (len(multipliers) - 1) != factor:
            raise InputError(
                f"{len(multipliers)} multipliers were given, expected {factor.bit_length()}: "
                f"one for each resolution of factor {factor}"
            )
        return [self.width * multiplier for multiplier in multipliers]

    def build_encoder(self, channels: int, factor: int, latent_width: int) -> AttentionEncoder:
        return AttentionEncoder(self, channels, self.widths(factor), latent_width)

    def build_decoder(self, outputs: int, factor: int, code_width: int) -> AttentionDecoder:
        return AttentionDecoder(self, outputs, self.widths(factor), code_width)


class ResidualBlock(nn.Module):
    """x + conv3×3(silu(norm(conv3×3(silu(norm(x)))))), where x passes a 1×1 convolution if the width changes."""

    def __init__(self, inputs: int, outputs: int, groups: int = 0) -> None:
        super().__init__()
        self.norm1 = _norm(inputs, groups)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs, groups)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class AttentionBlock(nn.Module):
    """x plus what every position gathers from all positions, by one head as wide as the map ``(B, C, H, W)``."""

    def __init__(self, width: int, groups: int = 0) -> None:
        super().__init__()
        self.norm = _norm(width, groups)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.projection = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
        gathered = F.scaled_dot_product_attention(query, key, value)[:, 0]
        return x + self.projection(gathered.transpose(1, 2).unflatten(2, x.shape[-2:]))


class Downsample(nn.Module):
    """Half the height and width by a strided 3×3 convolution; the padding is at the right and below alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the height and width by repetition, then a 3×3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class AttentionEncoder(nn.Module):
    """Images ``(B, C, H, W)`` to latents ``(B, D, H/f, W/f)``.

    Args:
        config: The architecture.
        channels: Of the images.
        widths: Channels at each resolution, the highest first.
        latent_width: D.

    References:
        Esser et al., Taming Transformers for High-Resolution Image Synthesis, 2020 (arXiv 2012.09841), appendix;
        layer for layer its encoder, so that weights trained there can be used.

    Example:
        >>> import torch
        >>> encoder = AttentionConfig().build_encoder(channels=3, factor=4, latent_width=8)
        >>> encoder(torch.zeros(2, 3, 16, 24)).shape
        torch.Size([2, 8, 4, 6])
    """

    def __init__(self, config: AttentionConfig, channels: int, widths: list[int], latent_width: int) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)
        self.unit = config.pixel_range == "unit"
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.levels = nn.Sequential()
        for inputs, outputs in pairwise([widths[0], *widths]):
            at_grid = len(self.levels) == len(widths) - 1
            blocks = _blocks(config, inputs, outputs, config.blocks, at_grid=at_grid)
            self.levels.append(nn.Sequential(*blocks, *([] if at_grid else [Downsample(outputs)])))
        self.middle = _middle(config, widths[-1])
        bottleneck = config.bottleneck or widths[-1]
        self.last = nn.Sequential(
            _norm(widths[-1], config.groups), nn.SiLU(), nn.Conv2d(widths[-1], bottleneck, 3, padding=1)
        )
        self.projection = nn.Conv2d(bottleneck, latent_width, 1)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images, self.factor)
        if self.unit:
            images = (images + 1) / 2
        return self.projection(self.last(self.middle(self.levels(self.first(images)))))


class AttentionDecoder(ImageDecoder):
    """Latents ``(B, D, h, w)`` to ``(B, out, h·f, w·f)``: the encoder mirrored, with a block more at each resolution.

    Args:
        config: The architecture.
        outputs: Channels of the outputs.
        widths: Channels at each resolution, the highest first.
        code_width: D.

    Example:
        >>> import torch
        >>> decoder = AttentionConfig().build_decoder(outputs=3, factor=4, code_width=8)
        >>> decoder(torch.zeros(2, 8, 4, 6)).shape
        torch.Size([2, 3, 16, 24])
    """

    def __init__(self, config: AttentionConfig, outputs: int, widths: list[int], code_width: int) -> None:
        super().__init__()
        bottleneck = config.bottleneck or widths[-1]
        self.unit = config.pixel_range == "unit"
        self.projection = nn.Conv2d(code_width, bottleneck, 1)
        self.first = nn.Conv2d(bottleneck, widths[-1], 3, padding=1)
        self.middle = _middle(config, widths[-1])
        self.levels = nn.Sequential()
        for wider, wide in pairwise([widths[-1], *reversed(widths)]):
            at_grid, finest = not len(self.levels), len(self.levels) == len(widths) - 1
            blocks = _blocks(config, wider, wide, config.blocks + 1, at_grid=at_grid)
            self.levels.append(nn.Sequential(*blocks, *([] if finest else [Upsample(wide)])))
        self.head = nn.Sequential(_norm(widths[0], config.groups), nn.SiLU())
        self.last = nn.Conv2d(widths[0], outputs, 3, padding=1)

    @property
    def last_weight(self) -> nn.Parameter:
        return self.last.get_parameter("weight")

    def forward(self, latents: Tensor) -> Tensor:
        outputs = self.last(self.head(self.levels(self.middle(self.first(self.projection(latents))))))
        return outputs * 2 - 1 if self.unit else outputs


def _blocks(
    config: AttentionConfig, inputs: int, outputs: int, count: int, *, at_grid: bool
) -> list[nn.Module]:
    """Residual blocks of one resolution, the first of which changes the width; with attention after each, if wanted."""
    blocks: list[nn.Module] = []
    for number in range(count):
        blocks.append(ResidualBlock(outputs if number else inputs, outputs, config.groups))
        if at_grid and config.attention == "grid":
            blocks.append(AttentionBlock(outputs, config.groups))
    return blocks


def _middle(config: AttentionConfig, width: int) -> nn.Sequential:
    first = ResidualBlock(width, width, config.groups)
    attention = [AttentionBlock(width, config.groups)] if config.attention != "none" else []
    return nn.Sequential(first, *attention, ResidualBlock(width, width, config.groups))


def _norm(width: int, groups: int) -> nn.GroupNorm:
    # VQGAN's 32 groups; a narrow layer has fewer, since a group of one channel would hide how bright it is.
    return nn.GroupNorm(groups or min(32, width // 4), width, eps=1e-6)
