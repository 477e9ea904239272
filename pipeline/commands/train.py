"""``rasterwise train prior`` and ``train pixel``: they get the tokenizer of their codes, to draw sample images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.models import open_tokenizer
from pixel_baselines.options import TrainPixel
from pixel_baselines.train import run as run_pixel
from pixel_baselines.train import train_pixel
from rasterwise.codes.dataset import read_key
from rasterwise.codes.documents import holds_documents, read_documents_key
from rasterwise.errors import InputError
from rasterwise.training.autoregressive import Decode
from stage2_prior.options import TrainPrior, TrainTextPrior
from stage2_prior.train import run as run_prior
from stage2_prior.train import train_prior, train_text_prior


def decode_of(codes: Path) -> Decode:
    """Decode codes with the tokenizer that made those in a folder."""
    key = read_documents_key(codes) if holds_documents(codes) else read_key(codes)
    tokenizer = open_tokenizer(codes / "tokenizer")
    if tokenizer.fingerprint != key.tokenizer:
        raise InputError(
            f"{codes} holds codes of tokenizer {key.tokenizer[:12]}…, but {tokenizer.fingerprint[:12]}… is in its "
            f"tokenizer/; delete {codes} and encode again"
        )
    return lambda symbols: tokenizer.decode(symbols.cpu())


def train_prior_with_images(options: TrainPrior) -> dict[str, Any]:
    """Train a prior, with sample images on the way."""
    return train_prior(options, decode_of(options.codes))


def train_text_prior_with_images(options: TrainTextPrior[Any]) -> dict[str, Any]:
    """Train a model of text and images, with sample images on the way."""
    return train_text_prior(options, decode_of(options.codes))


def train_pixel_with_images(options: TrainPixel[Any]) -> dict[str, Any]:
    """Train a pixel-level model, with sample images on the way, also on codes."""
    return train_pixel(options, decode_of(options.codes) if options.codes else None)


def main_prior(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command ``rasterwise train prior``."""
    return run_prior(arguments, program, train_prior_with_images, train_text_prior_with_images)


def main_pixel(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command ``rasterwise train pixel``."""
    return run_pixel(arguments, program, train_pixel_with_images)


if __name__ == "__main__":
    sys.exit(main_prior())
