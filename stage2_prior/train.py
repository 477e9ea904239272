"""Train a transformer prior: ``rasterwise train prior``, or ``python -m stage2_prior.train`` under torchrun."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasterwise.codes.dataset import open_codes
from rasterwise.command_line.run import run_command
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.autoregressive import Decode, train_on_codes
from rasterwise.training.config import TrainingConfig
from rasterwise.training.dry_run import dry_run
from rasterwise.training.likelihood import LikelihoodObjective
from rasterwise.training.run.run_folder import RunFolder
from stage2_prior.transformer.model import TransformerPrior
from stage2_prior.transformer.network import TransformerPriorConfig

COMMAND = "train prior"
"""The name of its runs in run.json."""


@dataclass(frozen=True)
class TrainPrior:
    """Train a transformer prior on a dataset of codes.

    Attributes:
        codes: The codes' folder, from `rasterwise encode`.
        output: The run's folder; with the tokenizer in it, it is a whole pipeline.
        model: The transformer.
        training: How it is trained.
        label_dropout: Share of labels hidden in training, so that guidance has an unconditional model.
        resume: Go on with the run in this folder, as it was configured: nothing else needs to be given, and what
            is given must agree with it. The same command again does the same.
        dry_run: Print the resolved configuration, the parameters, the FLOPs of a step and the memory that it takes,
            and write nothing.
        force: Delete a run that is in the output folder and start anew.
        json: Print the report as JSON.
    """

    codes: Path = Path("runs/codes")
    output: Path = Path("runs/prior")
    model: TransformerPriorConfig = field(default_factory=TransformerPriorConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    label_dropout: float = 0.1
    resume: Path | None = None
    dry_run: bool = False
    force: bool = False
    json: bool = False


def train_prior(options: TrainPrior, decode: Decode | None = None) -> dict[str, Any]:
    """Run the command; returns the run's report.

    Args:
        options: The flags.
        decode: The tokenizer's, for sample images as the training goes; this room knows no tokenizer.
    """
    accelerator = start_accelerator(options.training)
    codes = open_codes(options.codes)
    config = dataclasses.replace(
        options.model, grid=codes.key.grid, classes=codes.key.classes, tokenizer=codes.key.tokenizer
    )
    options = dataclasses.replace(options, model=config)
    if options.dry_run:
        objective = LikelihoodObjective(TransformerPrior(config), label_dropout=options.label_dropout)
        return dry_run(options, objective, codes.train, options.training, accelerator)
    main = accelerator.is_main_process
    run = RunFolder.claim(options.output, COMMAND, options, force=options.force, main=main)
    accelerator.wait_for_everyone()
    if run.report:
        return run.report
    return train_on_codes(
        TransformerPrior(config),
        codes,
        options.training,
        run,
        accelerator,
        label_dropout=options.label_dropout,
        decode=decode,
    )


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command, without sample images."""
    return run_command(train_prior, TrainPrior, arguments, program, resumes=COMMAND)


if __name__ == "__main__":
    sys.exit(main())
