"""Train a VQ-VAE: ``rasterwise train vqvae``, or ``python -m stage1_vqvae.train`` under torchrun or accelerate."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from rasterwise.command_line.options import TrainingOptions, in_order
from rasterwise.command_line.run import USER_ERROR, run_command, split_word
from rasterwise.command_line.training import read_images, run_training
from rasterwise.configuration import configuration
from rasterwise.data.augmentation import Augmentation, augmented
from rasterwise.data.config import DataConfig
from rasterwise.errors import InputError
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from rasterwise.training.objective import TrainingTask
from stage1_vqvae.evaluation import evaluate_tokenizer, reconstruction_image
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage1_vqvae.quantizers.table import DEFAULT_QUANTIZER, QUANTIZERS
from stage1_vqvae.tokenizers.vqvae import VQVAE, VQVAEConfig

COMMAND = "train vqvae"
"""The name of its runs in run.json."""


@in_order
@configuration(kw_only=True)
class TrainVQVAE(TrainingOptions):
    """Train a VQ-VAE on a dataset of images.

    Attributes:
        output: The run's folder; its model/ is the trained VQ-VAE.
        data: The images.
        augmentation: How training images are changed at random.
        model: The VQ-VAE; --quantizer NAME chooses its quantizer.
        training: How it is trained.
    """

    output: Path = Path("runs/vqvae")
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=2000, learning_rate=1e-3, ema_decay=0.99)
    )


def train_vqvae(options: TrainVQVAE) -> dict[str, Any]:
    """Run the command; returns the run's report."""
    accelerator = start_accelerator(options.training)
    data = read_images(options.data, accelerator)
    config = dataclasses.replace(options.model, channels=data.shape[0])
    model = VQVAE(config)
    model.grid(*data.shape)
    model.trained_on = dataclasses.asdict(options.data)
    shown = next(iter(data.test.ordered(32))).values
    task = TrainingTask(
        LearnedTokenizerObjective(model),
        augmented(data.train, options.augmentation),
        evaluate=lambda model, accelerator: evaluate_tokenizer(model, data.test, data.shape, accelerator),
        draw=lambda model: reconstruction_image(model, shown),
        card=f"Trained on `{options.data.name}`, images {'×'.join(map(str, data.shape))}.",
    )
    return run_training(
        dataclasses.replace(options, model=config),
        COMMAND,
        task,
        accelerator,
        images=data,
    )


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the command with the flags of the quantizer that --quantizer names."""
    name, rest = split_word(sys.argv[1:] if arguments is None else arguments, "--quantizer")
    if name is not None and name not in QUANTIZERS:
        known = ", ".join(QUANTIZERS)
        print(f"rasterwise: --quantizer is {name!r}, expected one of {known}", file=sys.stderr)
        return USER_ERROR

    def command(options: TrainVQVAE) -> dict[str, Any]:
        found = options.model.quantizer.kind
        if name not in (None, found):
            raise InputError(
                f"--quantizer is {name!r}, but the run in {options.output} has {found!r}; leave --quantizer out"
            )
        return train_vqvae(options)

    default = TrainVQVAE(model=VQVAEConfig(quantizer=QUANTIZERS[name or DEFAULT_QUANTIZER]()))
    shown = f"{program or 'python -m stage1_vqvae.train'} [--quantizer {{{','.join(QUANTIZERS)}}}]"
    return run_command(command, TrainVQVAE, rest, shown, default=default, resumes=COMMAND)


if __name__ == "__main__":
    sys.exit(main())
