"""What a learned tokenizer makes of images in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.images import to_levels
from stage1_vqvae.losses.likelihood import Likelihood


@dataclass(frozen=True)
class Reconstruction:
    """Images after the encoder, the quantizer and the decoder.

    Attributes:
        outputs: Of the decoder, float32 or float64 ``(B, outputs_per_subpixel · C, H, W)``.
        likelihood: What they mean.
        codes: int64 ``(B, depth, H/f, W/f)``.
        auxiliary_loss: The quantizer's: scalar, weighted.
    """

    outputs: Tensor
    likelihood: Likelihood
    codes: Tensor
    auxiliary_loss: Tensor

    @property
    def mean(self) -> Tensor:
        """Reconstructed images on the scale where images lie in [-1, 1], float ``(B, C, H, W)``."""
        return self.likelihood.mean(self.outputs)

    @property
    def images(self) -> Tensor:
        """The reconstructed images, uint8 ``(B, C, H, W)``."""
        return to_levels(self.mean)

    def error(self, images: Tensor) -> Tensor:
        """What is minimised of the originals, uint8 ``(B, C, H, W)``: ``(B,)``, an average over subpixels."""
        return self.likelihood.error(self.outputs, images)

    def nats(self, images: Tensor) -> Tensor:
        """−log p(image | codes) in nats.

        Args:
            images: The originals, uint8 ``(B, C, H, W)``.

        Returns:
            float ``(B,)``.

        Raises:
            InputError: There is no likelihood.
        """
        if not self.likelihood.has_nats:
            raise InputError(
                f"this tokenizer was trained with likelihood {self.likelihood.name}; the ELBO needs "
                "--likelihood logistic or logit-laplace"
            )
        return self.likelihood.nats(self.outputs, images)
