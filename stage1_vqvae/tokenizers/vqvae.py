"""The VQ-VAE: images to a small grid of discrete codes and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor, nn

from rasterwise.errors import InputError
from rasterwise.models.pretrained import Pretrained
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.likelihoods import discretized_logistic_log_prob
from stage1_vqvae.autoencoders.convolutional import Decoder, Encoder
from stage1_vqvae.quantizers.vector import Quantizer
from stage1_vqvae.reconstruction import Reconstruction, to_levels, to_unit

FACTORS = (2, 4, 8, 16)
LOGISTIC_LEVELS = 256


@dataclass(frozen=True)
class VQVAEConfig:
    """A VQ-VAE.

    Attributes:
        channels: Of the images: 1 or 3; the data decide.
        factor: How many times smaller the code grid is than the image, each way: 2, 4, 8 or 16.
        codebook_size: How many codes there are (K).
        code_width: Length of a code vector.
        width: Channels of the convolutions at the code grid; half as many at full resolution.
        blocks: Residual blocks in the encoder, and in the decoder.
        commitment_weight: Weight of the pull that keeps latents near their codes (β of the paper).
        codebook_decay: Decay of the codebook's moving averages.
        dead_code_threshold: Codes used less often than this a batch, on average, are renewed.
        likelihood: What the decoder is trained for: "mse", the squared error, or "logistic", a discretized
            logistic a subpixel, which gives the image's ELBO in bits/dim.
    """

    channels: Annotated[int, tyro.conf.Suppress] = 1
    factor: Literal[2, 4, 8, 16] = 4
    codebook_size: int = 512
    code_width: int = 64
    width: int = 128
    blocks: int = 2
    commitment_weight: float = 0.25
    codebook_decay: float = 0.99
    dead_code_threshold: float = 1.0
    likelihood: Literal["mse", "logistic"] = "mse"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}, expected 1 or 3")
        if self.factor not in FACTORS:
            raise InputError(f"factor is {self.factor}, expected one of {FACTORS}")
        if self.codebook_size < 2:
            raise InputError(f"codebook_size is {self.codebook_size}, expected 2 or more")
        if self.width % 16:
            raise InputError(f"width is {self.width}, expected a multiple of 16")


class VQVAE(Pretrained):
    """A convolutional VQ-VAE, and the tokenizer that it is once trained.

    Args:
        config: Its architecture.

    References:
        van den Oord et al., Neural Discrete Representation Learning, 2017 (arXiv 1711.00937).

    Example:
        >>> import torch
        >>> from rasterwise import VQVAE, VQVAEConfig
        >>> vqvae = VQVAE(VQVAEConfig(factor=4, codebook_size=16, code_width=8, width=16))
        >>> images = torch.randint(256, (2, 1, 28, 28), dtype=torch.uint8)
        >>> _ = vqvae(images)  # a training batch starts the codebook
        >>> symbols = vqvae.eval().encode(images)
        >>> symbols.shape, vqvae.decode(symbols).shape
        (torch.Size([2, 1, 7, 7]), torch.Size([2, 1, 28, 28]))
    """

    kind = "vqvae"
    config_class = VQVAEConfig
    config: VQVAEConfig

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config)
        halvings = FACTORS.index(config.factor) + 1
        widths = [config.width // 2] + [config.width] * halvings
        outputs = config.channels * (2 if config.likelihood == "logistic" else 1)
        self.encoder = Encoder(config.channels, widths, config.blocks, config.code_width)
        self.quantizer = Quantizer(
            config.code_width,
            config.codebook_size,
            config.codebook_decay,
            config.commitment_weight,
            config.dead_code_threshold,
        )
        self.decoder = Decoder(outputs, widths, config.blocks, config.code_width)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def stochastic(self) -> bool:
        """False: nothing is drawn in encoding."""
        return False

    def checkpointed_layers(self) -> list[nn.Module]:
        """Both networks, but not the codebook, which learns as it computes."""
        return [self.encoder, self.decoder]

    def grid(self, channels: int, height: int, width: int) -> Grid:
        """The code grid of images ``(channels, height, width)``.

        Raises:
            InputError: The factor does not divide the size, or the channels are not this model's.
        """
        factor = self.config.factor
        if channels != self.config.channels:
            raise InputError(
                f"images have {channels} channels, this VQ-VAE was built for {self.config.channels}"
            )
        if height % factor or width % factor:
            raise InputError(
                f"images are {height}×{width}, which factor {factor} does not divide; "
                f"resize them (--size {math.ceil(max(height, width) / factor) * factor}, say)"
            )
        return Grid(1, height // factor, width // factor, self.config.codebook_size)

    def image_shape(self, grid: Grid) -> tuple[int, int, int]:
        """(channels, height, width) of the images that a code grid decodes to."""
        return self.config.channels, grid.height * self.config.factor, grid.width * self.config.factor

    def forward(self, images: Tensor, *, more_to_come: bool = False) -> Reconstruction:
        """Encode, quantize and decode uint8 images ``(B, C, H, W)``; for ``more_to_come`` see ``Quantizer``."""
        self.grid(*images.shape[1:])
        latents = self.encoder(to_unit(images, self.encoder))
        quantized = self.quantizer(latents, more_to_come=more_to_come)
        mean, log_scale = self._decode(quantized.latents)
        return Reconstruction(mean, log_scale, quantized.codes, quantized.commitment_loss)

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 images ``(B, C, H, W)`` to codes, int64 ``(B, 1, H/f, W/f)``. Nothing is drawn."""
        self.grid(*images.shape[1:])
        return self.quantizer(self.encoder(to_unit(images, self.encoder))).codes[:, None]

    @torch.no_grad()
    def decode(self, symbols: Tensor) -> Tensor:
        """Codes int64 ``(B, 1, h, w)`` to uint8 images ``(B, C, h·f, w·f)``: the mean of the likelihood."""
        return to_levels(self._decode(self.quantizer.lookup(symbols[:, 0]))[0])

    def reconstruction_nats(self, images: Tensor, reconstruction: Reconstruction) -> Tensor:
        """−log p(image | codes) in nats, float ``(B,)``. Needs the logistic likelihood."""
        if reconstruction.log_scale is None:
            raise InputError(
                "this VQ-VAE was trained with likelihood mse; the ELBO needs --likelihood logistic"
            )
        nats = discretized_logistic_log_prob(
            reconstruction.mean, reconstruction.log_scale, images.long(), LOGISTIC_LEVELS
        )
        return -nats.flatten(1).sum(1)

    def _decode(self, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        outputs = self.decoder(latents)
        outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
        if self.config.likelihood == "mse":
            return outputs, None
        mean, log_scale = outputs.chunk(2, dim=1)
        # A scale far below a bin's width adds nothing but steep gradients (PixelCNN++ bounds it alike).
        return mean, (log_scale - 2).clamp(min=-7)
