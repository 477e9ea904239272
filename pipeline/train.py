"""``rasterwise train prior``: stage 2's training, handed the tokenizer of its codes to draw pictures with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from pipeline.models import open_tokenizer
from rasterwise.codes import read_key
from rasterwise.command_line import run_command
from rasterwise.likelihood_training import Decode
from stage2_prior.train import TrainPrior, train_prior


def train_prior_with_pictures(options: TrainPrior) -> dict[str, Any]:
    """Train a prior with sample pictures as it goes."""
    return train_prior(options, decode_of(options))


def decode_of(options: TrainPrior) -> Decode:
    """The decoding of the tokenizer that made the codes."""
    read_key(options.codes)
    tokenizer = open_tokenizer(options.codes / "tokenizer")
    return lambda symbols: tokenizer.decode(symbols.cpu())


def main_prior(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command ``rasterwise train prior``."""
    return run_command(train_prior_with_pictures, TrainPrior, arguments, program)


if __name__ == "__main__":
    sys.exit(main_prior())
