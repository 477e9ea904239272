"""Vector quantization with a codebook that one linear map moves as a whole."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
import tyro
from torch import Tensor
from vector_quantize_pytorch import SimVQ

from rasterwise.configuration import Levels, Weight, Width, configuration
from stage1_vqvae.quantizers.codebook import nearest_codes
from stage1_vqvae.quantizers.quantizer import Quantized, Quantizer, QuantizerConfig, straight_through


@configuration()
class SimVQConfig(QuantizerConfig):
    """A random codebook that stays, behind a linear map that is learned.

    Attributes:
        codebook_size: How many codes there are (K).
        code_width: Length of a code vector.
        codebook_weight: Weight of the pull of the codes to their latents.
        commitment_weight: Weight of the pull of latents to their codes.
        kind: The quantizer's name.
    """

    codebook_size: Levels = 8192
    code_width: Width = 64
    codebook_weight: Weight = 1.0
    commitment_weight: Weight = 0.25
    kind: Annotated[Literal["simvq"], tyro.conf.Suppress] = "simvq"

    def build(self) -> SimVectorQuantizer:
        """A quantizer with a random codebook."""
        return SimVectorQuantizer(self)


class SimVectorQuantizer(Quantizer):
    """The nearest of K vectors, which are random and fixed but for one linear map of them all.

    Every latent moves the map, and with it also the codes that nothing was near; so none falls out of use.

    Args:
        config: Size of the codebook, and the weights of its losses.

    References:
        Zhu et al., Addressing Representation Collapse in Vector Quantized Models with One Linear Layer, 2024 (arXiv
        2411.02038).

    Example:
        >>> import torch
        >>> quantizer = SimVectorQuantizer(SimVQConfig(codebook_size=16, code_width=8))
        >>> quantizer(torch.randn(2, 8, 4, 4)).codes.shape
        torch.Size([2, 1, 4, 4])
    """

    def __init__(self, config: SimVQConfig) -> None:
        super().__init__(codebook_size=config.codebook_size, latent_width=config.code_width)
        self.codebook_weight = config.codebook_weight
        self.commitment_weight = config.commitment_weight
        # The library's codebook. Its forward pass would hold the distances of all latents to all codes.
        self.codebook = SimVQ(config.code_width, config.codebook_size)

    def quantize(self, latents: Tensor, *, more_to_come: bool) -> Quantized:
        """The nearest code vectors, straight-through; the loss pulls codes to latents, and latents to codes."""
        codebook = self.codebook.codebook
        codes = nearest_codes(latents.detach(), codebook.detach())
        vectors = codebook[codes]
        loss = self.codebook_weight * F.mse_loss(vectors, latents.detach())
        loss = loss + self.commitment_weight * F.mse_loss(latents, vectors.detach())
        quantized = straight_through(latents, vectors) if self.training else vectors
        return Quantized(quantized, codes[..., None], loss)

    def vectors(self, codes: Tensor) -> Tensor:
        """Rows of the codebook."""
        return self.codebook.codebook[codes[..., 0]]
