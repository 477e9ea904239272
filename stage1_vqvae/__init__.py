"""Stage 1: a VQ-VAE that turns images into a small grid of discrete codes and back."""

from stage1_vqvae.quantizer import Quantized, Quantizer
from stage1_vqvae.vqvae import VQVAE, Reconstruction, VQVAEConfig

__all__ = ["VQVAE", "Quantized", "Quantizer", "Reconstruction", "VQVAEConfig"]
