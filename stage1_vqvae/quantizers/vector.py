"""The codebook: vector-quantize-pytorch's, in float32 and laid out for images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from rasterwise.errors import InputError, NonFiniteError
from stage1_vqvae.quantizers.quantizer import Quantized


class Quantizer(nn.Module):
    """A codebook of K vectors learned by exponential moving averages, started by k-means on the first batch.

    Codes that fall out of use are renewed with latents of the current batch.

    Args:
        width: Length of a code vector (D).
        codebook_size: How many there are (K).
        decay: Of the moving averages.
        commitment_weight: β of the paper.
        dead_code_threshold: A code used less often than this, as a moving average of uses a batch, is renewed.

    References:
        van den Oord et al., Neural Discrete Representation Learning, 2017 (arXiv 1711.00937), appendix A.1.
    """

    def __init__(
        self,
        width: int,
        codebook_size: int,
        decay: float,
        commitment_weight: float,
        dead_code_threshold: float,
    ) -> None:
        super().__init__()
        self.codebook = VectorQuantize(
            dim=width,
            codebook_size=codebook_size,
            decay=decay,
            kmeans_init=True,
            kmeans_iters=10,
            threshold_ema_dead_code=dead_code_threshold,
            commitment_weight=commitment_weight,
            rotation_trick=False,
            sync_codebook=torch.distributed.is_available() and torch.distributed.is_initialized(),
        )

    @property
    def fitted(self) -> bool:
        """Whether a first training batch has started the codebook."""
        return bool(self.codebook._codebook.initted)

    def forward(self, latents: Tensor, *, more_to_come: bool = False) -> Quantized:
        """Quantize float latents ``(B, D, H, W)``; in training mode the codebook learns from them.

        With ``more_to_come`` they are a part of a batch and not its last: the codebook adds them up and learns
        from all of them at the last part. The first part alone starts it, and the last alone renews its dead codes.
        """
        if not (self.training or self.fitted):
            raise InputError("the codebook has not been fitted: train the VQ-VAE before encoding with it")
        height, width = latents.shape[-2:]
        # Half precision changes which code is nearest, and one NaN would spread through the whole codebook.
        with torch.autocast(latents.device.type, enabled=False):
            flat = latents.float() if latents.dtype != torch.float64 else latents
            flat = flat.flatten(2).transpose(1, 2)
            if self.training and not bool(torch.isfinite(flat).all()):
                raise NonFiniteError("the encoder's latents are not finite; a lower --learning-rate may help")
            quantized, codes, loss = self.codebook(flat, accum_ema_update=more_to_come)
        return Quantized(
            latents=quantized.transpose(1, 2).unflatten(2, (height, width)),
            codes=codes.unflatten(1, (height, width)),
            commitment_loss=loss.sum(),
        )

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes int64 ``(B, H, W)`` to latents ``(B, D, H, W)``."""
        return self.codebook.get_codes_from_indices(codes).movedim(-1, 1)
