"""The vision transformers of ViT-VQGAN as encoder and decoder."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from rasterwise.configuration import Depth, Width, WidthOrZero, configuration
from rasterwise.errors import InputError
from stage1_vqvae.autoencoders.autoencoder import AutoencoderConfig, ImageDecoder, check_size

LOWEST_FREQUENCY = 1e-2
"""Of the position embedding, in radians a patch; the highest one is 1. A grid hardly has more than 100 rows."""


@configuration()
class ViTConfig(AutoencoderConfig):
    """Two vision transformers whose patches are as large as the factor.

    The defaults suit small images on a CPU. The paper's small model has depth 8, width 512 and 8 heads, its base
    model depth 12, width 768 and 12 heads.

    Attributes:
        kind: The autoencoder's name.
        blocks: Transformer blocks in the encoder, and in the decoder.
        width: Of the residual stream, a multiple of 4 and of the heads.
        heads: Attention heads.
        mlp_width: Width inside the MLPs; 0 for four times ``width``.
    """

    kind: Annotated[Literal["vit"], tyro.conf.Suppress] = "vit"
    blocks: Depth = 4
    width: Width = 256
    heads: Depth = 4
    mlp_width: WidthOrZero = 0

    def __post_init__(self) -> None:
        if self.width % 4 or self.width % self.heads:
            raise InputError(f"width is {self.width}, expected a multiple of 4 and of {self.heads} heads")

    def build_encoder(self, channels: int, factor: int, latent_width: int) -> ViTEncoder:
        return ViTEncoder(self, channels, factor, latent_width)

    def build_decoder(self, outputs: int, factor: int, code_width: int) -> ViTDecoder:
        return ViTDecoder(self, outputs, factor, code_width)


class TransformerBlock(nn.Module):
    """Attention of all patches to all patches, then an MLP, each on the normalised stream and added to it.

    Args:
        width: Of the stream ``(B, N, D)``.
        heads: Attention heads.
        mlp_width: Width inside the MLP.
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.GELU(), nn.Linear(mlp_width, width))

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        gathered = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.projection(gathered)
        return x + self.mlp(self.norm2(x))


class ViTEncoder(nn.Module):
    """Images ``(B, C, H, W)`` to latents ``(B, D, H/f, W/f)``: patches, transformer blocks, projection.

    Positions are fixed sines and cosines of row and column, so that images of any size can be encoded; the paper's
    are learned for one size. An MLP with a tanh in its middle projects what the blocks give to the narrow latents.

    Args:
        config: The architecture.
        channels: Of the images.
        factor: Side of a patch.
        latent_width: D.

    References:
        Yu et al., Vector-quantized Image Modeling with Improved VQGAN, 2021 (arXiv 2110.04627), section 3.1.

    Example:
        >>> import torch
        >>> encoder = ViTConfig(blocks=1, width=32).build_encoder(channels=3, factor=8, latent_width=8)
        >>> encoder(torch.zeros(2, 3, 16, 24)).shape
        torch.Size([2, 8, 2, 3])
    """

    def __init__(self, config: ViTConfig, channels: int, factor: int, latent_width: int) -> None:
        super().__init__()
        self.factor = factor
        self.patches = nn.Conv2d(channels, config.width, factor, stride=factor)
        self.blocks = _blocks(config)
        self.head = _head(config, latent_width)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images, self.factor)
        patches = self.patches(images)
        sequence = (patches + position_embedding(patches)).flatten(2).transpose(1, 2)
        return self.head(self.blocks(sequence)).transpose(1, 2).unflatten(2, patches.shape[-2:])


class ViTDecoder(ImageDecoder):
    """Latents ``(B, D, h, w)`` to ``(B, out, h·f, w·f)``: projection, transformer blocks, patches.

    Args:
        config: The architecture.
        outputs: Channels of the outputs.
        factor: Side of a patch.
        code_width: D.

    Example:
        >>> import torch
        >>> decoder = ViTConfig(blocks=1, width=32).build_decoder(outputs=3, factor=8, code_width=8)
        >>> decoder(torch.zeros(2, 8, 2, 3)).shape
        torch.Size([2, 3, 16, 24])
    """

    def __init__(self, config: ViTConfig, outputs: int, factor: int, code_width: int) -> None:
        super().__init__()
        self.factor = factor
        self.projection = nn.Conv2d(code_width, config.width, 1)
        self.blocks = _blocks(config)
        self.head = _head(config, outputs * factor * factor)

    @property
    def last_weight(self) -> nn.Parameter:
        return self.head[-1].get_parameter("weight")

    def forward(self, latents: Tensor) -> Tensor:
        x = self.projection(latents)
        sequence = (x + position_embedding(x)).flatten(2).transpose(1, 2)
        patches = self.head(self.blocks(sequence)).transpose(1, 2).unflatten(2, latents.shape[-2:])
        return F.pixel_shuffle(patches, self.factor)


def position_embedding(x: Tensor) -> Tensor:
    """Sines and cosines of the row, then of the column, of every position of a map.

    Args:
        x: The map, float ``(B, D, h, w)``; D is a multiple of 4.

    Returns:
        float32 ``(D, h, w)`` between -1 and 1.
    """
    width, height, columns = x.shape[1:]
    frequencies = LOWEST_FREQUENCY ** torch.linspace(0, 1, width // 4, device=x.device)
    parts = []
    for length, shape in ((height, (-1, height, 1)), (columns, (-1, 1, columns))):
        angles = frequencies[:, None] * torch.arange(length, device=x.device)
        parts += [wave.view(shape).expand(-1, height, columns) for wave in (angles.sin(), angles.cos())]
    return torch.cat(parts)


def _blocks(config: ViTConfig) -> nn.Sequential:
    mlp_width = config.mlp_width or 4 * config.width
    blocks = [TransformerBlock(config.width, config.heads, mlp_width) for _ in range(config.blocks)]
    return nn.Sequential(*blocks, nn.LayerNorm(config.width))


def _head(config: ViTConfig, outputs: int) -> nn.Sequential:
    mlp_width = config.mlp_width or 4 * config.width
    return nn.Sequential(nn.Linear(config.width, mlp_width), nn.Tanh(), nn.Linear(mlp_width, outputs))
