"""Train a learned tokenizer: ``rasterwise train vqvae``, or ``python -m stage1_vqvae.train`` under torchrun."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from rasterwise.command_line.run import USER_ERROR, run_command, split_word
from rasterwise.command_line.training import read_images, run_training
from rasterwise.data.augmentation import augmented
from rasterwise.errors import InputError
from rasterwise.processes import first_to_fail
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.memory import built_to_fit
from rasterwise.training.objective import TrainingTask
from stage1_vqvae.autoencoders.table import AUTOENCODERS
from stage1_vqvae.evaluation import evaluate_tokenizer, reconstruction_image
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage1_vqvae.options import TrainVQVAE
from stage1_vqvae.presets import PRESETS, check_preset, preset_options
from stage1_vqvae.quantizers.table import QUANTIZERS
from stage1_vqvae.tokenizers.vqvae import VQVAE

COMMAND = "train vqvae"
"""The name of its runs in run.json."""

CHOICES: dict[str, dict[str, Any]] = {
    "--tokenizer": PRESETS,
    "--quantizer": QUANTIZERS,
    "--autoencoder": AUTOENCODERS,
}
"""The flags that say which others there are, and what they choose from."""


def train_vqvae(options: TrainVQVAE) -> dict[str, Any]:
    """Run the command; returns the run's report."""
    accelerator = start_accelerator(options.training)
    data = read_images(options.data, accelerator)
    config = dataclasses.replace(options.model, channels=data.shape[0])
    model = built_to_fit(VQVAE, config, options.training, accelerator)
    model.grid(*data.shape)
    model.trained_on = dataclasses.asdict(options.data)
    objective = LearnedTokenizerObjective(model, options.perceptual, options.adversarial)
    for discriminator in objective.adversaries:
        discriminator.model.check_size(*data.shape[1:])
    shown = next(iter(data.test.ordered(32))).values
    task = TrainingTask(
        objective,
        augmented(data.train, options.augmentation),
        evaluate=lambda model, accelerator: evaluate_tokenizer(model, data.test, data.shape, accelerator),
        draw=lambda model: reconstruction_image(model, shown),
        card=f"Trained on `{options.data.name}`, images {'×'.join(map(str, data.shape))}.",
        images=data,
    )
    return run_training(
        dataclasses.replace(options, model=config),
        COMMAND,
        task,
        accelerator,
    )


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Run the command with the flags of the parts that --tokenizer, --quantizer and --autoencoder choose."""
    rest = list(sys.argv[1:] if arguments is None else arguments)
    chosen: dict[str, str | None] = {}
    for flag in CHOICES:
        chosen[flag], rest = split_word(rest, flag)
    try:
        default = preset_options(*chosen.values())
    except InputError as error:
        if first_to_fail():
            print(f"rasterwise: {error}", file=sys.stderr)
        return USER_ERROR

    def command(options: TrainVQVAE) -> dict[str, Any]:
        model = options.model
        for flag, found in (("--quantizer", model.quantizer.kind), ("--autoencoder", model.autoencoder.kind)):
            if chosen[flag] not in (None, found):
                raise InputError(
                    f"{flag} is {chosen[flag]!r}, but the run in {options.output} has {found!r}; leave {flag} out"
                )
        if preset := chosen["--tokenizer"]:
            check_preset(preset, options)
        return train_vqvae(options)

    words = [f"[{flag} {{{','.join(table)}}}]" for flag, table in CHOICES.items()]
    shown = " ".join([program or "python -m stage1_vqvae.train", *words])
    return run_command(command, TrainVQVAE, rest, shown, default=default, resumes=COMMAND)


if __name__ == "__main__":
    sys.exit(main())
