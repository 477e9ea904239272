"""Training and evaluation of any autoregressive model by maximum likelihood."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator
from torch import Tensor

from rasterwise.data.splits import Batch, Split
from rasterwise.measure.metrics import Means
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import UNCONDITIONED, Condition
from rasterwise.symbols.likelihoods import bits_per_dim, categorical_log_prob, finite_log_prob
from rasterwise.tokenizers.image import ImageTokenizer, encode_reproducibly
from rasterwise.training.objective import Losses, Objective


class LikelihoodObjective(Objective):
    """Negative log-likelihood, averaged over the symbols of a batch.

    Args:
        model: Any autoregressive model.
        tokenizer: Turns the batch's images into symbols; None where the data are symbols already.
        label_dropout: Share of labels hidden in training, so that the model also learns the unconditional
            distribution, which guidance needs.
    """

    model: AutoregressiveModel
    criterion = "nll_nats"

    def __init__(
        self, model: AutoregressiveModel, tokenizer: ImageTokenizer | None = None, label_dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.model = model
        self._tokenizer = (tokenizer,)  # in a tuple it is no submodule: neither trained nor saved
        self.label_dropout = label_dropout

    def forward(self, batch: Batch) -> Losses:
        symbols = tokenized(batch, self._tokenizer[0])
        nll_nats = -self._log_prob(symbols, self._condition(batch)).mean()
        return Losses(
            nll_nats / self.model.grid.size,
            {"nll_nats": nll_nats.detach(), "nats_per_symbol": nll_nats.detach() / self.model.grid.size},
        )

    def _log_prob(self, symbols: Tensor, condition: Condition | None) -> Tensor:
        """The log-probability of a training batch, ``(B,)`` nats."""
        return self.model.log_prob(symbols, condition)

    def _condition(self, batch: Batch) -> Condition | None:
        labels = hidden_labels(batch, self.label_dropout) if self.model.config.classes else None
        return None if labels is None else Condition(labels)


def hidden_labels(batch: Batch, share: float) -> Tensor | None:
    """The labels of a training batch, a share of them hidden; None where it has none."""
    if batch.labels is None:
        return None
    hidden = torch.rand(batch.labels.shape, device=batch.labels.device) < share
    return batch.labels.masked_fill(hidden, UNCONDITIONED)


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
        seed: Seed of a tokenizer that draws.

    Returns:
        nll_nats (mean of a grid; of two grids also of each) with nll_nats_standard_error, nats_per_symbol,
        bits_per_symbol, accuracy (share of symbols that were the likeliest), and items; bits_per_dim if each symbol is
        a subpixel of the image.

    Raises:
        NonFiniteError: The model's logits are infinite or NaN.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    means = Means()
    for batch in split.ordered(batch_size, rank=rank, world=world):
        symbols = batch.values
        if tokenizer is not None:
            assert batch.indices is not None, "read in order, items have indices"
            symbols = encode_reproducibly(tokenizer, symbols, batch.indices.tolist(), seed)
        symbols = symbols.to(model.device)
        condition = batch.to(model.device).condition if model.config.classes else None
        logits = model(symbols, condition)
        nats = -categorical_log_prob(logits, symbols).double()
        means.add(
            nll_nats=-finite_log_prob(-nats.flatten(1).sum(1)),
            **{
                f"{name}_nll_nats": part.flatten(1).sum(1)
                for name, part in model.grids_of(nats).items()
                if name
            },
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
    for name in filter(None, model.grids_of(torch.zeros(1, *grid.shape))):
        metrics[f"{name}_nll_nats"] = means.mean(f"{name}_nll_nats")
    if tokenizer is not None and tokenizer.symbols == "subpixels":
        metrics["bits_per_dim"] = bits_per_dim(nll_nats, grid.size)
    return metrics
