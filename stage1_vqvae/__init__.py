"""Stage 1: learned image tokenizers, which turn images into a small grid of discrete codes and back."""

from stage1_vqvae.quantizers.fsq import FSQConfig
from stage1_vqvae.quantizers.gumbel import GumbelQuantizerConfig
from stage1_vqvae.quantizers.l2 import L2QuantizerConfig
from stage1_vqvae.quantizers.lfq import LFQConfig
from stage1_vqvae.quantizers.residual import ResidualQuantizerConfig
from stage1_vqvae.quantizers.simvq import SimVQConfig
from stage1_vqvae.quantizers.vector import VectorQuantizerConfig
from stage1_vqvae.tokenizers.vqvae import VQVAE, VQVAEConfig

__all__ = [
    "VQVAE",
    "FSQConfig",
    "GumbelQuantizerConfig",
    "L2QuantizerConfig",
    "LFQConfig",
    "ResidualQuantizerConfig",
    "SimVQConfig",
    "VQVAEConfig",
    "VectorQuantizerConfig",
]
