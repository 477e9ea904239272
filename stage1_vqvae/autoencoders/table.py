"""The one table of autoencoders; what ``__all__`` names here, ``rasterwise`` offers."""

from __future__ import annotations

from typing import TypeAlias

from stage1_vqvae.autoencoders.attention import AttentionConfig
from stage1_vqvae.autoencoders.convolutional import ConvolutionalConfig
from stage1_vqvae.autoencoders.vit import ViTConfig

__all__ = ["AttentionConfig", "ConvolutionalConfig", "ViTConfig"]

AnyAutoencoderConfig: TypeAlias = ConvolutionalConfig | AttentionConfig | ViTConfig
"""What a tokenizer's configuration may hold; files and flags are read as one of these, by ``kind``."""

AUTOENCODERS: dict[str, type[AnyAutoencoderConfig]] = {
    "convolutional": ConvolutionalConfig,
    "attention": AttentionConfig,
    "vit": ViTConfig,
}
"""Every autoencoder by its name, which is its ``kind``."""
