"""Training and evaluation of any autoregressive model by maximum likelihood."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from rasterwise.autoregressive import AutoregressiveModel
from rasterwise.codes import CodeData
from rasterwise.condition import UNCONDITIONED, Condition
from rasterwise.data import ImageData
from rasterwise.files import copied_folder
from rasterwise.images import picture_grid
from rasterwise.likelihoods import bits_per_dim, categorical_log_prob
from rasterwise.metrics import Means
from rasterwise.runs import RunFolder
from rasterwise.splits import Batch, Split
from rasterwise.tokenizer import ImageTokenizer, PixelTokenizer, encode_alike
from rasterwise.training import Losses, Objective, TrainingConfig, train

Decode = Callable[[Tensor], Tensor]
"""Symbols to uint8 images: a tokenizer's, handed to the training that wants to show pictures."""


class LikelihoodObjective(Objective):
    """Negative log-likelihood, averaged over the symbols of a batch.

    Args:
        model: Any autoregressive model.
        tokenizer: Turns the batch's images into symbols; None where the data are symbols already.
        label_dropout: Share of labels hidden in training, so that the model can also be asked for the
            unconditional distribution, which guidance needs.
    """

    model: AutoregressiveModel
    criterion = "nll_nats"

    def __init__(
        self, model: AutoregressiveModel, tokenizer: ImageTokenizer | None = None, label_dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.model = model
        self._tokenizer = [tokenizer]  # in a list: not a submodule, so neither trained nor saved
        self.label_dropout = label_dropout

    def forward(self, batch: Batch) -> Losses:
        symbols = tokenized(batch, self._tokenizer[0])
        condition = self._condition(batch)
        nll_nats = -self.model.log_prob(symbols, condition).mean()
        return Losses(
            nll_nats / self.model.grid.size,
            {"nll_nats": nll_nats.detach(), "nats_per_symbol": nll_nats.detach() / self.model.grid.size},
        )

    def _condition(self, batch: Batch) -> Condition | None:
        if batch.labels is None or not self.model.config.classes:
            return None
        hidden = torch.rand(batch.labels.shape, device=batch.labels.device) < self.label_dropout
        return Condition(batch.labels.masked_fill(hidden, UNCONDITIONED))


def tokenized(batch: Batch, tokenizer: ImageTokenizer | None) -> Tensor:
    """The symbols of a training batch: its values as they are, or encoded by the tokenizer."""
    return batch.values if tokenizer is None else tokenizer.encode(batch.values)


@torch.no_grad()
def evaluate_likelihood(
    model: AutoregressiveModel,
    split: Split,
    accelerator: Accelerator,
    *,
    tokenizer: ImageTokenizer | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, float]:
    """Exact likelihood over a whole split: every item once, whatever the batch size and process count.

    Args:
        model: In evaluation mode.
        split: Images with a tokenizer, else symbols.
        accelerator: All processes call this and share the items.
        tokenizer: Turns images into symbols.
        batch_size: Items at once in each process.
        seed: Of a tokenizer that draws.

    Returns:
        nll_nats (mean a grid) with nll_nats_standard_error, nats_per_symbol and bits_per_symbol,
        accuracy (share of symbols that were the likeliest), and items; bits_per_dim where each symbol is
        a subpixel of the image.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    means = Means()
    for batch in split.ordered(batch_size, rank=rank, world=world):
        symbols = batch.values
        if tokenizer is not None:
            assert batch.numbers is not None, "read in order, items have numbers"
            symbols = encode_alike(tokenizer, symbols, batch.numbers.tolist(), seed)
        symbols = symbols.to(model.device)
        condition = batch.to(model.device).condition if model.config.classes else None
        logits = model(symbols, condition)
        nats = categorical_log_prob(logits, symbols)
        means.add(
            nll_nats=-nats.double().flatten(1).sum(1),
            accuracy=(logits.argmax(-1) == symbols).double().flatten(1).mean(1),
        )
    means.reduce(accelerator)
    nll_nats, grid = means.mean("nll_nats"), model.grid
    metrics = {
        "nll_nats": nll_nats,
        "nll_nats_standard_error": means.standard_error("nll_nats"),
        "nats_per_symbol": nll_nats / grid.size,
        "bits_per_symbol": nll_nats / grid.size / math.log(2),
        "accuracy": means.mean("accuracy"),
        "items": means.count("nll_nats"),
    }
    if isinstance(tokenizer, PixelTokenizer):
        metrics["bits_per_dim"] = bits_per_dim(nll_nats, grid.size)
    return metrics


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
        decode: For sample pictures; None for none.
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
        draw=None if decode is None else lambda model: sample_picture(model, decode),
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
        draw=lambda model: sample_picture(model, tokenizer.decode),
        card=f"Trained on images as grids of symbols, {model.grid}.",
    )
    return {"output": str(run.path), **dataclasses.asdict(report)}


def sample_picture(
    model: AutoregressiveModel, decode: Decode, *, columns: int = 8, seed: int = 0
) -> Image.Image:
    """Samples at temperature 1 as one picture: a row a class, or as many rows as columns without classes."""
    classes = len(model.config.classes)
    rows = classes or columns
    condition = Condition(torch.arange(classes).repeat_interleave(columns)) if classes else None
    generator = torch.Generator().manual_seed(seed)
    return picture_grid(decode(model.sample(rows * columns, condition, generator=generator)), columns=columns)
