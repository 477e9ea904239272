"""Stage 1 trainings worth repeating, with what they cost and reached."""

from __future__ import annotations

from pathlib import Path

from rasterwise.data.config import DataConfig
from rasterwise.training.config import TrainingConfig
from stage1_vqvae.autoencoders.attention import AttentionConfig
from stage1_vqvae.autoencoders.convolutional import ConvolutionalConfig
from stage1_vqvae.losses.adversarial import AdversarialConfig
from stage1_vqvae.losses.perceptual import PerceptualConfig
from stage1_vqvae.options import TrainVQVAE
from stage1_vqvae.quantizers.l2 import L2QuantizerConfig
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


def emoji_vqgan_recipe(dataset: str, output: Path) -> TrainVQVAE:
    """A VQGAN of pictures on white, 64×64 to 16×16 of 512 codes, that trains in about 12 core minutes.

    The same as ``rasterwise train vqvae --tokenizer vqgan --dataset DATA --size 64 --resample box --autoencoder
    convolutional --width 32 --quantizer l2 --codebook-size 512 --batch-size 16 --perceptual-side 64
    --discriminator-width 16 --discriminator-layers 2 --adversarial-start 500 --steps 1600 --learning-rate 1e-3
    --ema-decay 0.995 --evaluate-every 200``. Time and scores: docs/experiments.md.
    """
    return TrainVQVAE(
        output=output,
        data=DataConfig(dataset=dataset, size=64, resample="box"),
        model=VQVAEConfig(
            quantizer=L2QuantizerConfig(codebook_size=512), autoencoder=ConvolutionalConfig(width=32)
        ),
        perceptual=PerceptualConfig(perceptual_weight=0.2, perceptual_side=64),
        adversarial=AdversarialConfig(
            adversarial_weight=0.5, adversarial_start=500, discriminator_width=16, discriminator_layers=2
        ),
        training=TrainingConfig(
            steps=1600, batch_size=16, learning_rate=1e-3, ema_decay=0.995, evaluate_every=200
        ),
    )


def vqgan_256_recipe(dataset: str, output: Path) -> TrainVQVAE:
    """A VQGAN of photographs, 256×256 to 16×16 of 16,384 codes, as wide as published ones. For a GPU; not yet run."""
    return TrainVQVAE(
        output=output,
        data=DataConfig(dataset=dataset, size=256, streaming=True),
        model=VQVAEConfig(
            factor=16,
            quantizer=L2QuantizerConfig(codebook_size=16_384),
            autoencoder=AttentionConfig(width=128, blocks=2, bottleneck=256),
        ),
        perceptual=PerceptualConfig(perceptual_weight=0.2),
        adversarial=AdversarialConfig(adversarial_weight=0.5, adversarial_start=20_000),
        training=TrainingConfig(
            steps=250_000, batch_size=32, learning_rate=1e-4, ema_decay=0.9999, precision="bf16"
        ),
    )
