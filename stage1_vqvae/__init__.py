"""Stage 1: learned image tokenizers, which turn images into a small grid of discrete codes and back."""

from stage1_vqvae.quantizers.fsq import FSQConfig
from stage1_vqvae.quantizers.vector import VectorQuantizerConfig
from stage1_vqvae.tokenizers.vqvae import VQVAE, VQVAEConfig

__all__ = ["VQVAE", "FSQConfig", "VQVAEConfig", "VectorQuantizerConfig"]
