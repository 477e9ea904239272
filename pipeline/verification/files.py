"""Files: a model that is saved and opened again is the same model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from pipeline.verification.check import Check, at_most
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition


@torch.no_grad()
def saved_and_opened(
    model: AutoregressiveModel, symbols: Tensor, condition: Condition | None = None
) -> Check:
    """From its folder, a model comes back with the same fingerprint and bit-identical log-probabilities."""
    cause = (
        "weights or buffers that are no part of the state dict, a constructor that draws or reads something, "
        "or a configuration that leaves out what the network was built with"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = model.save_pretrained(Path(temporary) / "model")
        opened = type(model).from_pretrained(folder).to(model.device)
    if opened.fingerprint != model.fingerprint:
        return at_most("save and open", 1, 0, "the fingerprint is another one after opening", cause)
    opened = opened.to(next(model.parameters()).dtype).in_order(model.order)  # which is not saved
    difference = (opened.log_prob(symbols, condition) - model.log_prob(symbols, condition)).abs().max().item()
    return at_most("save and open", difference, 0.0, "difference of log_prob after opening, in nats", cause)
