"""Finite scalar quantization: every channel rounded to one of a few levels."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import tyro
from pydantic import Field
from torch import Tensor
from vector_quantize_pytorch import FSQ

from rasterwise.configuration import configuration
from rasterwise.errors import InputError
from stage1_vqvae.quantizers.quantizer import Quantized, Quantizer, QuantizerConfig

MAX_CODES = 2**24
"""Codes are found by a sum in float32, which holds whole numbers up to this."""


@configuration()
class FSQConfig(QuantizerConfig):
    """Finite scalar quantization.

    Attributes:
        kind: The quantizer's name.
        levels: Levels of each channel, 3 or more each; a code has as many channels as there are levels. The paper
            takes 8 6 5 for about 256 codes, 8 5 5 5 for 1024, 7 5 5 5 5 for 4096, 8 8 8 6 5 for 16384.
        codebook_size: How many codes there are: the product of the levels, which 0 stands for.
    """

    kind: Annotated[Literal["fsq"], tyro.conf.Suppress] = "fsq"
    levels: tuple[Annotated[int, Field(ge=3, le=MAX_CODES)], ...] = (8, 5, 5, 5)
    codebook_size: Annotated[int, Field(ge=0, le=MAX_CODES)] = 0

    def __post_init__(self) -> None:
        shown = " ".join(map(str, self.levels))
        if not self.levels:
            raise InputError("levels are none, expected one or more of 3 or more each")
        product = math.prod(self.levels)
        if product > MAX_CODES:
            raise InputError(f"levels {shown} make {product} codes, expected at most {MAX_CODES}")
        if self.codebook_size not in (0, product):
            raise InputError(
                f"codebook_size is {self.codebook_size}, but levels {shown} make {product} codes; "
                "leave codebook_size out, or choose levels whose product it is"
            )

    def build(self) -> FiniteScalarQuantizer:
        """A quantizer; it learns nothing."""
        return FiniteScalarQuantizer(self)


class FiniteScalarQuantizer(Quantizer):
    """Each channel bounded by a tanh and rounded; a code is the combination of the levels. There is no codebook.

    Args:
        config: The levels.

    References:
        Mentzer et al., Finite Scalar Quantization: VQ-VAE Made Simple, 2023 (arXiv 2309.15505).

    Example:
        >>> import torch
        >>> quantizer = FiniteScalarQuantizer(FSQConfig(levels=(3, 3)))
        >>> codes = torch.arange(9).view(1, 1, 3, 3)
        >>> quantizer.lookup(codes)[0, :, 0].T.tolist()
        [[-1.0, -1.0], [0.0, -1.0], [1.0, -1.0]]
    """

    def __init__(self, config: FSQConfig) -> None:
        super().__init__(codebook_size=math.prod(config.levels), latent_width=len(config.levels))
        self.scalars = FSQ(list(config.levels))

    def quantize(self, latents: Tensor, *, more_to_come: bool) -> Quantized:
        """The nearest levels, straight-through the rounding; there is no loss to add."""
        quantized, codes = self.scalars(latents)
        return Quantized(quantized, codes[..., None], latents.new_zeros(()))

    def vectors(self, codes: Tensor) -> Tensor:
        """The levels, between -1 and 1."""
        return self.scalars.indices_to_codes(codes[..., 0])
