"""Stage 1: a VQ-VAE that turns images into a small grid of discrete codes and back."""

from stage1_vqvae.quantizers.quantizer import Quantized
from stage1_vqvae.quantizers.vector import Quantizer
from stage1_vqvae.reconstruction import Reconstruction
from stage1_vqvae.tokenizers.vqvae import VQVAE, VQVAEConfig

__all__ = ["VQVAE", "Quantized", "Quantizer", "Reconstruction", "VQVAEConfig"]
