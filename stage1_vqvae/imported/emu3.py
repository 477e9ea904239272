"""Emu3's tokenizer, as transformers has it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from rasterwise.configuration import Depth, ImageChannels, Levels, Positive, Real, Width, configuration
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.image import ImageTokenizer


@configuration()
class Emu3TokenizerConfig:
    """The architecture of transformers' ``Emu3VQVAE``, under transformers' names, and its range of pixels.

    Attributes:
        in_channels: Of the images.
        codebook_size: How many codes there are (K).
        embed_dim: Length of a code vector.
        latent_channels: Channels between each network and its projection to or from code vectors: as many.
        base_channels: Channels at full resolution, in units of which the others are.
        channel_multiplier: Channels at each resolution, the highest first.
        num_res_blocks: Residual blocks at each resolution of the encoder; the decoder has one more.
        attn_resolutions: Where attention is: the numbers of resolutions, the highest being 0.
        hidden_size: Channels of the attention: those of the last resolution.
        num_attention_heads: Its heads.
        temporal_downsample_factor: Frames that are one grid of codes; a still image is repeated as often.
        pixel_mean: What is subtracted from pixels in [0, 1], a number a channel or one for all.
        pixel_deviation: What they are divided by then.
    """

    in_channels: ImageChannels = 3
    codebook_size: Levels = 32768
    embed_dim: Width = 4
    latent_channels: Width = 4
    base_channels: Width = 256
    channel_multiplier: tuple[Depth, ...] = (1, 2, 2, 4)
    num_res_blocks: Depth = 2
    attn_resolutions: tuple[int, ...] = (3,)
    hidden_size: Width = 1024
    num_attention_heads: Depth = 1
    temporal_downsample_factor: Depth = 4
    pixel_mean: tuple[Real, ...] = (0.5,)
    pixel_deviation: tuple[Positive, ...] = (0.5,)

    def __post_init__(self) -> None:
        for name in ("pixel_mean", "pixel_deviation"):
            if len(getattr(self, name)) not in (1, self.in_channels):
                raise InputError(
                    f"{name} has {len(getattr(self, name))} numbers, expected 1 or {self.in_channels}"
                )
        if not self.channel_multiplier:
            raise InputError("channel_multiplier is empty, expected one for each resolution")
        # One stack of layers reads latents and code vectors; and all attention has the width of the last resolution.
        if self.latent_channels != self.embed_dim:
            raise InputError(
                f"latent_channels is {self.latent_channels}, expected embed_dim, {self.embed_dim}"
            )
        if self.hidden_size != self.base_channels * self.channel_multiplier[-1]:
            raise InputError(
                f"hidden_size is {self.hidden_size}, expected {self.base_channels * self.channel_multiplier[-1]}: "
                "base_channels times the last channel_multiplier"
            )
        if self.temporal_downsample_factor & (self.temporal_downsample_factor - 1):
            raise InputError(
                f"temporal_downsample_factor is {self.temporal_downsample_factor}, expected a power of two"
            )


class Emu3Tokenizer(ImageTokenizer):
    """The tokenizer of Emu3: a VQGAN of videos, of which a still image is the case where all frames are the same.

    It encodes an image as several equal frames, which become one grid of codes, and decodes a grid to as many frames,
    of which the first is the image, as transformers does.

    Args:
        config: Its architecture.

    References:
        Wang et al., Emu3: Next-Token Prediction is All You Need, 2024 (arXiv 2409.18869), section 2.2.

    Example:
        >>> import torch
        >>> config = Emu3TokenizerConfig(
        ...     codebook_size=16, base_channels=32, channel_multiplier=(1, 1), num_res_blocks=1, hidden_size=32,
        ...     attn_resolutions=(1,),
        ... )
        >>> tokenizer = Emu3Tokenizer(config).eval()
        >>> codes = tokenizer.encode(torch.zeros(1, 3, 8, 12, dtype=torch.uint8))
        >>> codes.shape, tokenizer.decode(codes).shape
        (torch.Size([1, 1, 4, 6]), torch.Size([1, 3, 8, 12]))
    """

    kind = "emu3"
    config_class = Emu3TokenizerConfig
    symbols = "codes"
    config: Emu3TokenizerConfig

    def __init__(self, config: Emu3TokenizerConfig) -> None:
        from transformers import Emu3VQVAE, Emu3VQVAEConfig

        super().__init__(config)
        settings = dataclasses.asdict(config)
        del settings["pixel_mean"], settings["pixel_deviation"]
        self.vqvae = Emu3VQVAE(Emu3VQVAEConfig(**settings, out_channels=config.in_channels))

    @property
    def channels(self) -> int:
        """Channels of the images that it was built for."""
        return self.config.in_channels

    @property
    def factor(self) -> int:
        """How many times smaller the code grid is than the image, each way."""
        return 2 ** (len(self.config.channel_multiplier) - 1)

    def grid(self, channels: int, height: int, width: int) -> Grid:
        """The code grid of images ``(channels, height, width)``; InputError where there is none."""
        self.check_images(channels, height, width, self.factor)
        return Grid(1, height // self.factor, width // self.factor, self.config.codebook_size)

    def image_shape(self, grid: Grid) -> tuple[int, int, int]:
        """(channels, height, width) of the images that a code grid decodes to."""
        return self.channels, grid.height * self.factor, grid.width * self.factor

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 images ``(B, C, H, W)`` to codes, int64 ``(B, 1, H/f, W/f)``. Nothing is drawn."""
        self.grid(*images.shape[1:])
        if images.dtype != torch.uint8:
            raise InputError(f"images are {images.dtype}, expected uint8 (B, C, H, W)")
        mean, deviation = self._range(images.device)
        pixels = (images.to(self.vqvae.dtype) / 255 - mean) / deviation
        sizes = images.new_tensor([images.shape[2:]] * len(images), dtype=torch.int64)
        return torch.stack(self.vqvae.encode(pixels, sizes).image_tokens)[:, None]

    @torch.no_grad()
    def decode(self, symbols: Tensor) -> Tensor:
        """Codes int64 ``(B, 1, h, w)`` to uint8 images ``(B, C, h·f, w·f)``.

        Raises:
            InputError: They are no codes of this tokenizer.
        """
        if symbols.ndim != 4:
            raise InputError(f"symbols have shape {tuple(symbols.shape)}, expected (B, C, H, W)")
        height, width = (size * self.factor for size in symbols.shape[2:])
        self.grid(self.channels, height, width).check(symbols)
        mean, deviation = self._range(symbols.device)
        pixels = self.vqvae.decode(symbols[:, 0]) * deviation + mean
        if not bool(pixels.isfinite().all()):
            raise NonFiniteError(f"the decoded images of this {self.kind} are infinite or NaN")
        return (pixels * 255).round().clamp(0, 255).to(torch.uint8)

    def _range(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """What maps pixels in [0, 1] to those that the networks take, ``(C, 1, 1)`` each."""
        mean, deviation = (
            torch.tensor(values, dtype=self.vqvae.dtype, device=device)[:, None, None]
            for values in (self.config.pixel_mean, self.config.pixel_deviation)
        )
        return mean, deviation
