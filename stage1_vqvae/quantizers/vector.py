"""Vector quantization with a codebook that is learned by moving averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from rasterwise.errors import InputError
from stage1_vqvae.quantizers.quantizer import Quantized, Quantizer, QuantizerConfig


@dataclass(frozen=True)
class VectorQuantizerConfig(QuantizerConfig):
    """A codebook learned by moving averages.

    Attributes:
        kind: The quantizer's name.
        codebook_size: How many codes there are (K).
        code_width: Length of a code vector.
        commitment_weight: Weight of the pull that keeps latents near their codes (β of the paper).
        codebook_decay: Decay of the codebook's moving averages.
        dead_code_threshold: Codes used less often than this a batch, on average, are renewed.
    """

    kind: Annotated[Literal["ema"], tyro.conf.Suppress] = "ema"
    codebook_size: int = 512
    code_width: int = 64
    commitment_weight: float = 0.25
    codebook_decay: float = 0.99
    dead_code_threshold: float = 1.0

    def __post_init__(self) -> None:
        if self.codebook_size < 2:
            raise InputError(f"codebook_size is {self.codebook_size}, expected 2 or more")

    def build(self) -> VectorQuantizer:
        """A quantizer whose codebook the first training batch starts."""
        return VectorQuantizer(self)


class VectorQuantizer(Quantizer):
    """The nearest of K vectors, which are learned by exponential moving averages.

    The first training batch starts the codebook, by k-means. Codes that fall out of use are renewed with latents of
    the current batch.

    Args:
        config: Size of the codebook, and how it learns.

    References:
        van den Oord et al., Neural Discrete Representation Learning, 2017 (arXiv 1711.00937), appendix A.1.

    Example:
        >>> import torch
        >>> quantizer = VectorQuantizer(VectorQuantizerConfig(codebook_size=16, code_width=8))
        >>> quantized = quantizer(torch.randn(2, 8, 4, 4))
        >>> quantized.codes.shape
        torch.Size([2, 1, 4, 4])
        >>> quantizer.lookup(quantized.codes).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, config: VectorQuantizerConfig) -> None:
        super().__init__(codebook_size=config.codebook_size, latent_width=config.code_width)
        self.codebook = VectorQuantize(
            dim=config.code_width,
            codebook_size=config.codebook_size,
            decay=config.codebook_decay,
            kmeans_init=True,
            kmeans_iters=10,
            threshold_ema_dead_code=config.dead_code_threshold,
            commitment_weight=config.commitment_weight,
            rotation_trick=False,
            sync_codebook=torch.distributed.is_available() and torch.distributed.is_initialized(),
        )

    @property
    def fitted(self) -> bool:
        """Whether a first training batch has started the codebook."""
        return bool(self.codebook._codebook.initted)

    def quantize(self, latents: Tensor, *, more_to_come: bool) -> Quantized:
        """The nearest code vectors, straight-through; the loss is β times the mean squared distance to them.

        Of a batch in parts, the first part alone starts the codebook, and the last alone renews its dead codes.
        """
        quantized, codes, loss = self.codebook(latents, accum_ema_update=more_to_come)
        return Quantized(quantized, codes[..., None], loss.sum())

    def vectors(self, codes: Tensor) -> Tensor:
        """Rows of the codebook."""
        return self.codebook.get_codes_from_indices(codes[..., 0])
