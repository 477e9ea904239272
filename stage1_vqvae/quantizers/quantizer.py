"""What a quantizer is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Quantized:
    """Latents after the codebook.

    Attributes:
        latents: The codebook's vectors, float ``(B, D, H, W)``; gradients pass straight to the encoder.
        codes: Their numbers, int64 ``(B, H, W)``.
        commitment_loss: Scalar, weighted: how far the encoder's latents are from their codes.
    """

    latents: Tensor
    codes: Tensor
    commitment_loss: Tensor
