"""The one table of learned tokenizers; what ``__all__`` names here, ``rasterwise`` offers."""

from __future__ import annotations

from stage1_vqvae.tokenizers.learned import LearnedTokenizer
from stage1_vqvae.tokenizers.vqvae import VQVAE, VQVAEConfig

__all__ = ["VQVAE", "VQVAEConfig"]

TOKENIZERS: dict[str, type[LearnedTokenizer]] = {"vqvae": VQVAE}
"""Every learned tokenizer by its kind."""
