"""Vector quantization with a codebook that is learned by moving averages."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from rasterwise.configuration import LATER, CountOrZero, Decay, Levels, Weight, Width, configuration
from rasterwise.errors import InputError
from rasterwise.symbols.growing_codebook import allowed_codes
from stage1_vqvae.quantizers.codebook import MovingAverageCodebook, nearest_codes
from stage1_vqvae.quantizers.quantizer import Quantized, Quantizer, QuantizerConfig, straight_through


@configuration()
class CodebookConfig(QuantizerConfig):
    """A codebook learned by moving averages.

    Attributes:
        codebook_size: How many codes there are (K).
        code_width: Length of a code vector.
        commitment_weight: Weight of the pull that keeps latents near their codes (β of the paper).
        codebook_decay: Decay of the codebook's moving averages.
        dead_code_threshold: Codes used less often than this a batch, on average, are renewed (0: none are). With
            more codes than a batch has latents, those used less than a quarter of an even use are.
        smallest_codebook: 0 for a codebook that every site has whole. Else the first site in raster order may have so
            many codes, the first ones of the codebook; the number grows by equal factors, to all at the last site.
    """

    codebook_size: Levels = 512
    code_width: Width = 64
    commitment_weight: Weight = 0.25
    codebook_decay: Decay = 0.99
    dead_code_threshold: Weight = 1.0
    smallest_codebook: CountOrZero = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        if self.smallest_codebook > self.codebook_size:
            raise InputError(
                f"smallest_codebook is {self.smallest_codebook}, expected at most codebook_size, {self.codebook_size}"
            )


@configuration()
class VectorQuantizerConfig(CodebookConfig):
    """The codebook of the VQ-VAE.

    Attributes:
        kind: The quantizer's name.
    """

    kind: Annotated[Literal["ema"], tyro.conf.Suppress] = "ema"

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

    normalised: ClassVar[bool] = False
    """Whether latents and code vectors are taken at length 1."""

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__(codebook_size=config.codebook_size, latent_width=config.code_width)
        self.commitment_weight, self.smallest_codebook = config.commitment_weight, config.smallest_codebook
        codebook = MovingAverageCodebook(
            config.codebook_size,
            config.code_width,
            decay=config.codebook_decay,
            dead_code_threshold=config.dead_code_threshold,
            normalised=self.normalised,
        )
        # The names under which files hold its buffers.
        self.codebook = nn.ModuleDict({"_codebook": codebook})

    @property
    def book(self) -> MovingAverageCodebook:
        """The codebook."""
        return self.codebook["_codebook"]  # type: ignore[return-value]

    @property
    def fitted(self) -> bool:
        """Whether a first training batch has started the codebook."""
        return bool(self.book.initted)

    def nearest(self, latents: Tensor, *, more_to_come: bool) -> Quantized:
        """The nearest code vectors themselves, without gradients; the codebook learns from latents in training.

        Of a batch in parts, the first part alone starts the codebook, and the last alone renews its dead codes.
        """
        if not self.fitted:
            self.book.start(latents.detach().flatten(0, 1))
        allowed = None
        if self.smallest_codebook:
            allowed = allowed_codes(latents.shape[1], self.codebook_size, self.smallest_codebook).to(
                latents.device
            )
        codes = nearest_codes(latents.detach(), self.book.vectors.to(latents.dtype), allowed)
        vectors = self.book.vectors[codes].to(latents.dtype)
        if self.training:
            self.book.learn(latents.detach().flatten(0, 1), codes.flatten(), more_to_come=more_to_come)
        commitment = self.commitment_weight * F.mse_loss(latents, vectors)
        return Quantized(vectors, codes[..., None], commitment)

    def quantize(self, latents: Tensor, *, more_to_come: bool) -> Quantized:
        """The nearest code vectors, straight-through; the loss is β times the mean squared distance to them."""
        if self.normalised:
            latents = F.normalize(latents, dim=-1)
        nearest = self.nearest(latents, more_to_come=more_to_come)
        if self.training:
            return dataclasses.replace(nearest, latents=straight_through(latents, nearest.latents))
        return nearest

    def requantized(self, codes: Tensor) -> Tensor | None:
        """The codes of the vectors of codes; None where not every site may have every code."""
        return None if self.smallest_codebook else super().requantized(codes)

    def vectors(self, codes: Tensor) -> Tensor:
        """Rows of the codebook."""
        return self.book.vectors[codes[..., 0]]
