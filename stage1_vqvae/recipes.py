"""Stage 1 trainings worth repeating, with what they cost and reached."""

from __future__ import annotations

from pathlib import Path

from rasterwise.data.config import DataConfig
from rasterwise.training.config import TrainingConfig
from stage1_vqvae.autoencoders.convolutional import ConvolutionalConfig
from stage1_vqvae.options import TrainVQVAE
from stage1_vqvae.quantizers.vector import VectorQuantizerConfig
from stage1_vqvae.tokenizers.vqvae import VQVAEConfig


def vqvae_recipe(output: Path) -> TrainVQVAE:
    """Stage 1 on digits: 8×8 images to 4×4 codes. The report of ``rasterwise quickstart`` is its score."""
    return TrainVQVAE(
        output=output,
        data=DataConfig(dataset="digits"),
        model=VQVAEConfig(
            factor=2,
            quantizer=VectorQuantizerConfig(codebook_size=64, code_width=16),
            autoencoder=ConvolutionalConfig(width=64, blocks=2),
        ),
        training=TrainingConfig(
            steps=900, batch_size=128, learning_rate=2e-3, ema_decay=0.99, evaluate_every=300
        ),
    )
