"""Training tasks of any autoregressive model: on codes, or on images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from rasterwise.codes.dataset import CodeData
from rasterwise.data.dataset import ImageData
from rasterwise.files import copied_folder
from rasterwise.images import image_grid
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.tokenizers.image import ImageTokenizer
from rasterwise.training.likelihood import LikelihoodObjective, evaluate_likelihood
from rasterwise.training.objective import TrainingTask

Decode = Callable[[Tensor], Tensor]
"""Symbols to uint8 images: a tokenizer's decoding, with which a training shows images."""


def codes_task(
    model: AutoregressiveModel, codes: CodeData, *, label_dropout: float, decode: Decode | None = None
) -> TrainingTask:
    """Train any autoregressive model as the prior of a code dataset.

    Args:
        model: Built for the codes' grid, classes and tokenizer.
        codes: What to train on; their tokenizer goes into the run.
        label_dropout: See ``LikelihoodObjective``.
        decode: For sample images; None for none.
    """
    return TrainingTask(
        LikelihoodObjective(model, label_dropout=label_dropout),
        codes.train,
        evaluate=lambda model, accelerator: evaluate_likelihood(model, codes.test, accelerator),
        draw=None if decode is None else lambda model: sample_image(model, decode),
        card=f"A prior over grids of codes, {codes.key.grid}.",
        save_tokenizer=lambda folder: copied_folder(codes.folder / "tokenizer", folder),
    )


def images_task(
    model: AutoregressiveModel, tokenizer: ImageTokenizer, images: ImageData, *, label_dropout: float
) -> TrainingTask:
    """Train any autoregressive model on images, tokenized batch by batch.

    Args:
        model: Built for the tokenizer's grid of these images.
        tokenizer: Turns images into symbols; on the device to train on; it goes into the run.
        images: What to train on.
        label_dropout: See ``LikelihoodObjective``.
    """
    return TrainingTask(
        LikelihoodObjective(model, tokenizer, label_dropout),
        images.train,
        evaluate=lambda model, accelerator: evaluate_likelihood(
            model, images.test, accelerator, tokenizer=tokenizer
        ),
        draw=lambda model: sample_image(model, tokenizer.decode),
        card=f"Trained on images as grids of symbols, {model.grid}.",
        save_tokenizer=tokenizer.save_pretrained,
        images=images,
    )


def sample_image(
    model: AutoregressiveModel, decode: Decode, *, columns: int = 8, seed: int = 0
) -> Image.Image:
    """Samples at temperature 1 as one image: a row for each class, or as many rows as columns without classes."""
    classes = len(model.config.classes)
    rows = classes or columns
    condition = Condition(torch.arange(classes).repeat_interleave(columns)) if classes else None
    generator = torch.Generator().manual_seed(seed)
    return image_grid(decode(model.sample(rows * columns, condition, generator=generator)), columns=columns)
