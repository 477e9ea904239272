"""Batches: what a row of a batch gets depends on that row alone, and the same computation gives the same twice."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.verification.check import Check, at_most
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.text import TextBatch

MORE_PADDING = 7
"""Tokens by which texts are padded further."""


def _limit(model: AutoregressiveModel, log_prob: Tensor) -> float:
    exact = next(model.parameters()).dtype == torch.float64
    return max(1.0, log_prob.abs().max().item()) * (1e-11 if exact else 1e-5)


@torch.no_grad()
def repeats(model: AutoregressiveModel, symbols: Tensor, condition: Condition | None = None) -> Check:
    """The same grids get the same log-probabilities twice, bit for bit."""
    first, second = model.log_prob(symbols, condition), model.log_prob(symbols, condition)
    return at_most(
        "repeatability",
        (first - second).abs().max().item(),
        0.0,
        "difference of log_prob computed twice, in nats",
        "dropout or batch statistics that are active in evaluation mode, a state that a forward pass changes, or noise "
        "that is drawn without a generator",
    )


@torch.no_grad()
def batch_invariance(
    model: AutoregressiveModel, symbols: Tensor, condition: Condition | None = None
) -> Check:
    """A grid's log-probability is the same alone and among others, whatever these and their conditions are."""
    whole = model.log_prob(symbols, condition)
    alone = torch.cat(
        [
            model.log_prob(symbols[row : row + 1], None if condition is None else condition[row : row + 1])
            for row in range(len(symbols))
        ]
    )
    return at_most(
        "batch invariance",
        (whole - alone).abs().max().item(),
        _limit(model, whole),
        f"largest difference of log_prob alone and in a batch of {len(symbols)}, in nats",
        "statistics over the batch, a reshape that mixes rows, or a condition that reaches the wrong row",
    )


@torch.no_grad()
def condition_counts(model: AutoregressiveModel, symbols: Tensor, condition: Condition) -> Check:
    """A row's condition changes its own log-probability."""
    one = symbols[:1].expand_as(symbols)
    nats = model.log_prob(one, condition)
    none = model.log_prob(one)
    unmoved = int(((nats - none).abs() <= 0).sum())
    return at_most(
        "condition counts",
        unmoved,
        0,
        f"rows of {len(symbols)} whose log_prob is the same with their condition and without",
        "a condition that is read and then dropped, or one that was never trained",
    )


@torch.no_grad()
def padding_invariance(model: AutoregressiveModel, symbols: Tensor, condition: Condition) -> Check:
    """A text's padding changes nothing: neither how long it is nor what tokens stand there."""
    text = condition.text
    assert text is not None
    padding = torch.ones(len(text), MORE_PADDING, dtype=torch.int64, device=text.tokens.device)
    tokens = torch.cat([torch.where(text.mask, text.tokens, 1), padding], 1)
    plain = model.log_prob(symbols, condition)
    padded = model.log_prob(symbols, replace(condition, text=TextBatch(tokens, text.lengths)))
    return at_most(
        "padding invariance",
        (plain - padded).abs().max().item(),
        _limit(model, plain),
        f"largest difference of log_prob with {MORE_PADDING} more padding tokens, in nats",
        "attention to padding, positions counted from the padded end, or a mean over the padded length",
    )
