"""Residual vector quantization: each codebook quantizes what the ones before it left."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor, nn

from rasterwise.configuration import Depth, configuration
from stage1_vqvae.quantizers.quantizer import Quantized, Quantizer, straight_through
from stage1_vqvae.quantizers.vector import CodebookConfig, VectorQuantizer


@configuration()
class ResidualQuantizerConfig(CodebookConfig):
    """Several codes a site.

    Attributes:
        depth: Codebooks, and codes a site: the code grid has as many channels.
        kind: The quantizer's name.
    """

    depth: Depth = 4
    kind: Annotated[Literal["residual"], tyro.conf.Suppress] = "residual"

    def build(self) -> ResidualQuantizer:
        """A quantizer whose codebooks the first training batch starts."""
        return ResidualQuantizer(self)


class ResidualQuantizer(Quantizer):
    """A sum of ``depth`` code vectors, each the nearest to what those before it left over.

    The codebooks are not shared, as they are in the paper; so each fits the scale of its own residuals.

    Args:
        config: How many codebooks, their size, and how they learn.

    References:
        Lee et al., Autoregressive Image Generation using Residual Quantization, 2022 (arXiv 2203.01941).
        Zeghidour et al., SoundStream: An End-to-End Neural Audio Codec, 2021 (arXiv 2107.03312), section 3.3.

    Example:
        >>> import torch
        >>> quantizer = ResidualQuantizer(ResidualQuantizerConfig(codebook_size=16, code_width=8, depth=3))
        >>> quantizer(torch.randn(2, 8, 4, 4)).codes.shape
        torch.Size([2, 3, 4, 4])
    """

    def __init__(self, config: ResidualQuantizerConfig) -> None:
        super().__init__(
            codebook_size=config.codebook_size, latent_width=config.code_width, depth=config.depth
        )
        self.layers = nn.ModuleList(VectorQuantizer(config) for _ in range(config.depth))

    @property
    def fitted(self) -> bool:
        """Whether a first training batch has started the codebooks."""
        return all(stage.fitted for stage in self.stages)

    @property
    def stages(self) -> list[VectorQuantizer]:
        """The quantizers, from the first to that of the last residual."""
        return [layer for layer in self.layers if isinstance(layer, VectorQuantizer)]

    def requantized(self, codes: Tensor) -> Tensor | None:
        """The codes of the vectors of codes; None where not every site may have every code."""
        return None if self.stages[0].smallest_codebook else super().requantized(codes)

    def quantize(self, latents: Tensor, *, more_to_come: bool) -> Quantized:
        """The sum of the nearest code vectors, straight-through; the loss is the sum of the commitments."""
        residual, summed = latents, torch.zeros_like(latents)
        codes, loss = [], latents.new_zeros(())
        for stage in self.stages:
            nearest = stage.nearest(residual, more_to_come=more_to_come)
            residual, summed = residual - nearest.latents, summed + nearest.latents
            codes.append(nearest.codes)
            loss = loss + nearest.auxiliary_loss
        quantized = straight_through(latents, summed) if self.training else summed
        return Quantized(quantized, torch.cat(codes, -1), loss)

    def vectors(self, codes: Tensor) -> Tensor:
        """The sum of the code vectors, in the order of the codebooks."""
        summed = self.stages[0].vectors(codes[..., :1])
        for number, stage in enumerate(self.stages[1:], 1):
            summed = summed + stage.vectors(codes[..., number : number + 1])
        return summed
