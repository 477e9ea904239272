"""What the training of a learned tokenizer takes."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path

from rasterwise.command_line.options import TrainingOptions, in_order
from rasterwise.configuration import configuration
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import DataConfig
from rasterwise.errors import InputError
from rasterwise.training.config import TrainingConfig
from stage1_vqvae.losses.adversarial import AdversarialConfig
from stage1_vqvae.losses.perceptual import PerceptualConfig
from stage1_vqvae.tokenizers.vqvae import VQVAEConfig


@in_order
@configuration(kw_only=True)
class TrainVQVAE(TrainingOptions):
    """Train a learned tokenizer on a dataset of images: a VQ-VAE, or what --tokenizer NAME chooses.

    --quantizer NAME and --autoencoder NAME choose its parts, which all go with one another.

    Attributes:
        output: The run's folder; its model/ is the trained tokenizer.
        data: The images.
        augmentation: How training images are changed at random.
        model: The tokenizer.
        perceptual: The perceptual loss.
        adversarial: The adversarial loss.
        training: How it is trained.
    """

    output: Path = Path("runs/vqvae")
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=2000, learning_rate=1e-3, ema_decay=0.99)
    )

    def __post_init__(self) -> None:
        if self.adversarial.adversarial_weight and self.training.compile:
            raise InputError(
                "compile does not go with an adversarial loss, whose weight takes gradients within the forward pass; "
                "leave --compile out, or set --adversarial-weight 0"
            )
