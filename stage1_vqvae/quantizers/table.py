"""The one table of quantizers; what ``__all__`` names here, ``rasterwise`` offers."""

from __future__ import annotations

from typing import TypeAlias

from stage1_vqvae.quantizers.fsq import FSQConfig
from stage1_vqvae.quantizers.gumbel import GumbelQuantizerConfig
from stage1_vqvae.quantizers.l2 import L2QuantizerConfig
from stage1_vqvae.quantizers.lfq import LFQConfig
from stage1_vqvae.quantizers.residual import ResidualQuantizerConfig
from stage1_vqvae.quantizers.simvq import SimVQConfig
from stage1_vqvae.quantizers.vector import VectorQuantizerConfig

__all__ = [
    "FSQConfig",
    "GumbelQuantizerConfig",
    "L2QuantizerConfig",
    "LFQConfig",
    "ResidualQuantizerConfig",
    "SimVQConfig",
    "VectorQuantizerConfig",
]

AnyQuantizerConfig: TypeAlias = (
    VectorQuantizerConfig
    | L2QuantizerConfig
    | FSQConfig
    | LFQConfig
    | SimVQConfig
    | ResidualQuantizerConfig
    | GumbelQuantizerConfig
)
"""What a tokenizer's configuration may hold; files and flags are read as one of these, by ``kind``."""

QUANTIZERS: dict[str, type[AnyQuantizerConfig]] = {
    "ema": VectorQuantizerConfig,
    "l2": L2QuantizerConfig,
    "fsq": FSQConfig,
    "lfq": LFQConfig,
    "simvq": SimVQConfig,
    "residual": ResidualQuantizerConfig,
    "gumbel": GumbelQuantizerConfig,
}
"""Every quantizer by the name that ``--quantizer`` takes, which is its ``kind``."""

DEFAULT_QUANTIZER = "ema"
