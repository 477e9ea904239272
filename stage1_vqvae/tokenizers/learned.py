"""What a learned tokenizer is: an encoder, a quantizer and a decoder."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

import torch
import tyro
from pydantic import Field
from torch import Tensor, nn

from rasterwise.configuration import ImageChannels, configuration
from rasterwise.errors import InputError, NonFiniteError
from rasterwise.images import to_levels, to_unit
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.image import ImageTokenizer, Reconstructed
from stage1_vqvae.autoencoders.autoencoder import ImageDecoder
from stage1_vqvae.losses.likelihood import LIKELIHOODS, Likelihood, raised
from stage1_vqvae.quantizers.quantizer import Bottleneck
from stage1_vqvae.quantizers.table import AnyQuantizerConfig
from stage1_vqvae.quantizers.vector import VectorQuantizerConfig
from stage1_vqvae.reconstruction import Reconstruction

FACTORS = (2, 4, 8, 16)


@configuration()
class LearnedTokenizerConfig:
    """What every learned tokenizer has.

    Attributes:
        channels: Of the images: 1 or 3; the data decide.
        factor: How many times smaller the code grid (of two the bottom one) is than the image, each way: 2, 4, 8, 16.
        quantizer: How latents become codes; --quantizer NAME chooses which.
        likelihood: What the decoder is trained for: "mse", the squared error; "mae", the absolute error; or
            "logistic" or "logit-laplace", a distribution of each subpixel, which give the image's ELBO in bits/dim.
    """

    channels: Annotated[ImageChannels, tyro.conf.Suppress] = 1
    factor: Literal[2, 4, 8, 16] = 4
    quantizer: Annotated[tyro.conf.AvoidSubcommands[AnyQuantizerConfig], Field(discriminator="kind")] = field(
        default_factory=VectorQuantizerConfig
    )
    likelihood: Literal["mse", "mae", "logistic", "logit-laplace"] = "mse"

    @property
    def outputs(self) -> int:
        """Channels that the decoder gives: a mean a subpixel, and a scale where the likelihood has one."""
        return self.channels * LIKELIHOODS[self.likelihood].outputs_per_subpixel


class LearnedTokenizer(ImageTokenizer):
    """An autoencoder with a quantizer in its middle, and the tokenizer that it is once trained.

    A subclass builds the three parts from its configuration, its only constructor argument.

    Args:
        config: What the parts were built from.
        encoder: Images float ``(B, C, H, W)`` in [-1, 1] to latents ``(B, quantizer.latent_width, H/f, W/f)``.
        quantizer: Latents to codes and back.
        decoder: Latents ``(B, quantizer.code_width, h, w)`` to ``(B, config.outputs, h·f, w·f)``.
    """

    symbols = "codes"
    config: LearnedTokenizerConfig

    def __init__(
        self, config: LearnedTokenizerConfig, encoder: nn.Module, quantizer: Bottleneck, decoder: ImageDecoder
    ) -> None:
        super().__init__(config)
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder

    @property
    def likelihood(self) -> Likelihood:
        """What the decoder's outputs mean."""
        return LIKELIHOODS[self.config.likelihood]

    @property
    def channels(self) -> int:
        """Channels of the images that it was built for."""
        return self.config.channels

    @property
    def factor(self) -> int:
        """How many times smaller the code grid is than the image, each way."""
        return self.config.factor

    def checkpointed_layers(self) -> list[nn.Module]:
        """Both networks, but not the quantizer, which may learn as it computes."""
        return [self.encoder, self.decoder]

    def grid(self, channels: int, height: int, width: int) -> Grid:
        """The code grid of images ``(channels, height, width)``.

        Raises:
            InputError: The factor does not divide the size, or the channels are not this tokenizer's.
        """
        factor = self.factor * self.quantizer.multiple
        of_top = " of the top grid" if self.quantizer.multiple > 1 else ""
        self.check_images(channels, height, width, factor, of_top)
        return self.quantizer.grid(height // self.factor, width // self.factor)

    def image_shape(self, grid: Grid) -> tuple[int, int, int]:
        """(channels, height, width) of the images that a code grid decodes to."""
        height, width = self.quantizer.latent_size(grid)
        return self.channels, height * self.factor, width * self.factor

    def grids_of(self, symbols: Tensor) -> dict[str, Tensor]:
        """The grids that codes consist of: one, or ``top`` and ``bottom``."""
        return self.quantizer.grids_of(symbols)

    def known_sites(self, pixels: Tensor) -> Tensor:
        return self.quantizer.known_sites(super().known_sites(pixels))

    def forward(self, images: Tensor, *, more_to_come: bool = False) -> Reconstruction:
        """Encode, quantize and decode uint8 images ``(B, C, H, W)``; for ``more_to_come`` see ``Quantizer``."""
        self.grid(*images.shape[1:])
        quantized = self.quantizer(self._latents(images), more_to_come=more_to_come)
        outputs = self._decode(quantized.latents)
        return Reconstruction(outputs, self.likelihood, quantized.codes, quantized.auxiliary_loss)

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 images ``(B, C, H, W)`` to codes, int64 ``(B, depth, H/f, W/f)``. Nothing is drawn."""
        self.grid(*images.shape[1:])
        return self.quantizer(self._latents(images)).codes

    @torch.no_grad()
    def decode(self, symbols: Tensor) -> Tensor:
        """Codes int64 ``(B, depth, h, w)`` to uint8 images ``(B, C, h·f, w·f)``: the mean of the likelihood.

        Raises:
            InputError: They are no codes of this tokenizer.
        """
        if symbols.ndim != 4:
            raise InputError(f"symbols have shape {tuple(symbols.shape)}, expected (B, C, H, W)")
        height, width = symbols.shape[2:]
        grid = Grid(self.quantizer.depth, height, width, self.quantizer.codebook_size)
        self.grid(*self.image_shape(grid)).check(symbols)
        return to_levels(self.likelihood.mean(self._decode(self.quantizer.lookup(symbols))))

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Reconstructed:
        """uint8 images ``(B, C, H, W)`` in one pass, with −log p(image | codes) where the likelihood has one."""
        reconstruction = self(images)
        nats = reconstruction.nats(images) if self.likelihood.has_nats else None
        return Reconstructed(reconstruction.images, reconstruction.codes, nats)

    def _latents(self, images: Tensor) -> Tensor:
        return self._finite(self.encoder(to_unit(images, next(self.parameters()).dtype)), "latents")

    def _finite(self, values: Tensor, what: str) -> Tensor:
        """Values as they are, if all are finite: a quantizer has codes for NaN, and uint8 has a level for it.

        In training the loop looks at the losses instead: reading values waits for the device.
        """
        reading = not self.training and not torch.compiler.is_compiling()
        if reading and not bool(values.isfinite().all()):
            raise NonFiniteError(
                f"the {what} of this {self.kind} are infinite or NaN: its weights are too large, or the precision is "
                "too low"
            )
        return values

    def _decode(self, latents: Tensor) -> Tensor:
        return raised(self._finite(self.decoder(latents), "decoded images"))
