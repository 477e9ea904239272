"""Vector quantization in a few dimensions, by direction alone."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from rasterwise.configuration import Levels, Width, configuration
from stage1_vqvae.quantizers.vector import CodebookConfig, VectorQuantizer


@configuration()
class L2QuantizerConfig(CodebookConfig):
    """A narrow codebook of vectors of length 1, for many codes.

    Attributes:
        kind: The quantizer's name.
    """

    codebook_size: Levels = 8192
    code_width: Width = 8
    kind: Annotated[Literal["l2"], tyro.conf.Suppress] = "l2"

    def build(self) -> L2Quantizer:
        """A quantizer whose codebook the first training batch starts."""
        return L2Quantizer(self)


class L2Quantizer(VectorQuantizer):
    """The code vector of the nearest direction, in few dimensions: latents and codes have length 1.

    The papers learn the codebook by gradients; here moving averages do, as in ``VectorQuantizer``, which keep many
    more codes in use.

    Args:
        config: Size of the codebook, and how it learns.

    References:
        Yu et al., Vector-quantized Image Modeling with Improved VQGAN, 2021 (arXiv 2110.04627), section 3.2.
        Sun et al., Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation, 2024 (arXiv
        2406.06525), section 2.1.

    Example:
        >>> import torch
        >>> quantizer = L2Quantizer(L2QuantizerConfig(codebook_size=16, code_width=4))
        >>> quantized = quantizer(torch.randn(2, 4, 4, 4))
        >>> lengths = quantizer.lookup(quantized.codes).norm(dim=1)
        >>> torch.allclose(lengths, torch.ones(2, 4, 4))
        True
    """

    normalised = True
