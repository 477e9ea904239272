"""What an autoencoder is: an encoder to latents on the code grid, and a decoder from there."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from rasterwise.errors import InputError


class ImageDecoder(nn.Module, ABC):
    """Latents float ``(B, D, h, w)`` to outputs ``(B, outputs, h·f, w·f)``, f the factor."""

    @property
    @abstractmethod
    def last_weight(self) -> nn.Parameter:
        """The weight of the last layer. An adversarial loss is balanced by the gradients that arrive there."""


class AutoencoderConfig(ABC):
    """The configuration of an autoencoder: a frozen dataclass whose field ``kind`` is the autoencoder's name.

    What the images, the factor and the quantizer decide is no field: it is handed in when the networks are built,
    so that any autoencoder goes with any quantizer.
    """

    @abstractmethod
    def build_encoder(self, channels: int, factor: int, latent_width: int) -> nn.Module:
        """The encoder.

        Args:
            channels: Of the images.
            factor: How many times smaller the code grid is than the image, each way.
            latent_width: Channels of the latents that the quantizer takes.

        Returns:
            A module that takes images float ``(B, channels, H, W)`` in [-1, 1] and gives latents
            ``(B, latent_width, H/factor, W/factor)``; InputError for a size that the factor does not divide.
        """

    @abstractmethod
    def build_decoder(self, outputs: int, factor: int, code_width: int) -> ImageDecoder:
        """The decoder.

        Args:
            outputs: Channels of its outputs: what the reconstruction's likelihood needs.
            factor: As of the encoder.
            code_width: Channels of the latents that the quantizer gives.
        """


def check_size(images: Tensor, factor: int) -> None:
    """Raise InputError where the factor does not divide the size of images ``(B, C, H, W)``."""
    height, width = images.shape[-2:]
    if height % factor or width % factor:
        raise InputError(f"images are {height}×{width}, which factor {factor} does not divide; resize them")
