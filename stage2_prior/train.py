"""Train a transformer prior: ``rasterwise train prior``, or ``python -m stage2_prior.train`` under torchrun."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from rasterwise.codes.dataset import open_codes
from rasterwise.command_line.options import TrainingOptions, in_order
from rasterwise.command_line.run import run_command
from rasterwise.command_line.training import run_training
from rasterwise.configuration import Share, configuration
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.autoregressive import Decode, codes_task
from rasterwise.training.config import TrainingConfig
from stage2_prior.transformer.model import TransformerPrior
from stage2_prior.transformer.network import TransformerPriorConfig

COMMAND = "train prior"
"""The name of its runs in run.json."""


@in_order
@configuration(kw_only=True)
class TrainPrior(TrainingOptions):
    """Train a transformer prior on a dataset of codes.

    Attributes:
        codes: The codes' folder, from `rasterwise encode`.
        output: The run's folder; with the tokenizer in it, it is a whole pipeline.
        model: The transformer.
        training: How it is trained.
        label_dropout: Share of labels hidden in training, so that guidance has an unconditional model.
    """

    codes: Path = Path("runs/codes")
    output: Path = Path("runs/prior")
    model: TransformerPriorConfig = field(default_factory=TransformerPriorConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    label_dropout: Share = 0.1


def train_prior(options: TrainPrior, decode: Decode | None = None) -> dict[str, Any]:
    """Run the command; returns its report.

    Args:
        options: The command's options.
        decode: Decodes codes to images, for sample images during the training; this room has no tokenizer.
    """
    accelerator = start_accelerator(options.training)
    codes = open_codes(options.codes)
    config = dataclasses.replace(
        options.model, grid=codes.key.grid, classes=codes.key.classes, tokenizer=codes.key.tokenizer
    )
    task = codes_task(TransformerPrior(config), codes, label_dropout=options.label_dropout, decode=decode)
    return run_training(dataclasses.replace(options, model=config), COMMAND, task, accelerator)


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command, without sample images."""
    return run_command(train_prior, TrainPrior, arguments, program, resumes=COMMAND)


if __name__ == "__main__":
    sys.exit(main())
