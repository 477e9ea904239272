"""Coding: a model's probabilities compress grids to their −log2 p, and decompress them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.verification.check import Check, at_most
from rasterwise.compression.streams import StreamDecoder, StreamEncoder
from rasterwise.models.autoregressive import AutoregressiveModel

WHOLE_WORDS = 40
"""Bits that a stream may have on top of what its symbols take: it ends at a whole word."""


@torch.no_grad()
def codec_round_trip(model: AutoregressiveModel, symbols: Tensor) -> Check:
    """Grids that are compressed come back, and take 0.5 % more than −log2 p at most."""
    encoder = StreamEncoder(model, together=len(symbols))
    encoder.encode(symbols)
    (stream,) = encoder.streams()
    back = StreamDecoder(model, [stream], together=len(symbols)).decode(len(symbols))
    wrong = int((back != symbols.cpu()).sum())
    cause = "as for cached = naive, or a decoder that does not compute the same twice"
    if wrong:
        return at_most(
            "codec round trip", wrong, 0, f"symbols of {symbols.numel():,} that do not come back", cause
        )
    bits = -model.log_prob(symbols).double().sum().item() / math.log(2)
    written = 8 * len(stream)
    return at_most(
        "codec round trip",
        max(0.0, written - WHOLE_WORDS) / bits - 1 if bits else 0.0,
        0.005,
        f"{written:,} bits written for {bits:,.0f} stated ones, as a share beyond them; every symbol comes back",
        cause,
    )
