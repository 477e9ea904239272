"""Training any autoregressive model, on codes or on images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from rasterwise.codes.dataset import CodeData
from rasterwise.data.dataset import ImageData
from rasterwise.files import copied_folder
from rasterwise.images import image_grid
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.training.config import TrainingConfig
from rasterwise.training.likelihood import LikelihoodObjective, evaluate_likelihood
from rasterwise.training.loop import train
from rasterwise.training.run.run_folder import RunFolder

Decode = Callable[[Tensor], Tensor]
"""Symbols to uint8 images: a tokenizer's, handed to the training that wants to show images."""


def train_on_codes(
    model: AutoregressiveModel,
    codes: CodeData,
    training: TrainingConfig,
    run: RunFolder,
    accelerator: Accelerator,
    *,
    label_dropout: float,
    decode: Decode | None,
) -> dict[str, Any]:
    """Train any autoregressive model as the prior over a code dataset; returns the run's report.

    The run's folder becomes a pipeline: the trained prior in model/ beside the tokenizer/ of its codes.

    Args:
        model: Built for the codes' grid, classes and tokenizer.
        codes: What to train on.
        training: How.
        run: Where to.
        accelerator: From ``start_accelerator``.
        label_dropout: See ``LikelihoodObjective``.
        decode: For sample images; None for none.
    """
    if accelerator.is_main_process:
        copied_folder(codes.folder / "tokenizer", run.path / "tokenizer")
    report = train(
        LikelihoodObjective(model, label_dropout=label_dropout),
        codes.train,
        training,
        run,
        accelerator,
        evaluate=lambda model, accelerator: evaluate_likelihood(model, codes.test, accelerator),
        draw=None if decode is None else lambda model: sample_image(model, decode),
        card=f"A prior over grids of codes, {codes.key.grid}.",
    )
    return {"output": str(run.path), **dataclasses.asdict(report)}


def train_on_images(
    model: AutoregressiveModel,
    tokenizer: Any,
    images: ImageData,
    training: TrainingConfig,
    run: RunFolder,
    accelerator: Accelerator,
    *,
    label_dropout: float,
) -> dict[str, Any]:
    """Train any autoregressive model on images that are tokenized as they come; returns the run's report.

    The run's folder becomes a pipeline: the trained model in model/ beside its tokenizer/.

    Args:
        model: Built for the tokenizer's grid of these images.
        tokenizer: An ImageTokenizer that can be saved.
        images: What to train on.
        training: How.
        run: Where to.
        accelerator: From ``start_accelerator``.
        label_dropout: See ``LikelihoodObjective``.
    """
    if accelerator.is_main_process:
        tokenizer.save_pretrained(run.path / "tokenizer")
    tokenizer.to(accelerator.device)
    report = train(
        LikelihoodObjective(model, tokenizer, label_dropout),
        images.train,
        training,
        run,
        accelerator,
        evaluate=lambda model, accelerator: evaluate_likelihood(
            model, images.test, accelerator, tokenizer=tokenizer
        ),
        draw=lambda model: sample_image(model, tokenizer.decode),
        card=f"Trained on images as grids of symbols, {model.grid}.",
    )
    return {"output": str(run.path), **dataclasses.asdict(report)}


def sample_image(
    model: AutoregressiveModel, decode: Decode, *, columns: int = 8, seed: int = 0
) -> Image.Image:
    """Samples at temperature 1 as one image: a row a class, or as many rows as columns without classes."""
    classes = len(model.config.classes)
    rows = classes or columns
    condition = Condition(torch.arange(classes).repeat_interleave(columns)) if classes else None
    generator = torch.Generator().manual_seed(seed)
    return image_grid(decode(model.sample(rows * columns, condition, generator=generator)), columns=columns)
