"""A block of pictures to streams of bytes and back, by the same cached decoder both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
import torch
from torch import Tensor

from rasterwise.decoding.decoder import Decoder
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import evaluating

FAMILY = constriction.stream.model.Categorical(perfect=False)
"""Probabilities in 24 bits: what a symbol is given at least costs 24 bits, and K levels cost K · 2⁻²⁴ of the rate."""

SMALLEST = 2.0**-126


@dataclass(frozen=True)
class EncodedBlock:
    """Grids of one size as bytes.

    Attributes:
        streams: Of each grid, its own: one that is damaged leaves the others as they are.
        bits: −log2 p of each grid under the probabilities that it was coded with, float64 ``(B,)``.
    """

    streams: list[bytes]
    bits: Tensor


def encode_block(model: AutoregressiveModel, symbols: Tensor) -> EncodedBlock:
    """Encode grids, int64 ``(B, C, H, W)``; what decodes them must be given as many at once."""
    coders = [constriction.stream.queue.RangeEncoder() for _ in symbols]
    values = model.grid.flatten(symbols).int().cpu().numpy()
    coded = np.empty(values.shape, np.float32)
    rows = np.arange(len(values))[:, None]

    def code(positions: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        step = values[:, positions]
        coded[:, positions] = probabilities[rows, np.arange(len(positions)), step]
        for coder, symbols_of_one, distributions in zip(coders, step, probabilities, strict=True):
            coder.encode(symbols_of_one, FAMILY, distributions)
        return step

    _through(model, len(values), code)
    bits = -np.log2(coded.clip(min=SMALLEST).astype(np.float64)).sum(1)
    return EncodedBlock(
        [coder.get_compressed().astype("<u4").tobytes() for coder in coders], torch.from_numpy(bits)
    )


def decode_block(model: AutoregressiveModel, streams: Sequence[bytes | None]) -> Tensor:
    """Decode grids, int64 ``(B, C, H, W)``.

    Args:
        model: The one that encoded them, on the same kind of machine, with as many threads.
        streams: Of all grids of the block, in their order; None for one whose symbols are not asked for. A stream
            that is damaged or cut decodes to other symbols, which a checksum finds; the rest are right.
    """
    coders = [None if stream is None else _opened(stream) for stream in streams]

    def code(positions: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        step = np.zeros((len(coders), len(positions)), np.int32)
        for row, (coder, distributions) in enumerate(zip(coders, probabilities, strict=True)):
            if coder is not None:
                step[row] = coder.decode(FAMILY, distributions)
        return step

    return _through(model, len(streams), code)


def _opened(stream: bytes) -> Any:
    words = np.frombuffer(stream[: len(stream) // 4 * 4], "<u4").astype(np.uint32)
    return constriction.stream.queue.RangeDecoder(words)


@torch.no_grad()
def _through(
    model: AutoregressiveModel, batch_size: int, code: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Tensor:
    """Take a decoder through grids whose symbols ``code`` gives.

    Args:
        model: Whose decoder.
        batch_size: B.
        code: Takes the positions ``(T,)`` of a step and their distributions, float32 ``(B, T, K)``; gives their
            symbols, int32 ``(B, T)``.

    Returns:
        The symbols, int64 ``(B, C, H, W)``.
    """
    grid = model.grid
    sequence = np.empty((batch_size, grid.size), np.int32)
    with evaluating(model):
        for decoder, positions in _steps(model, batch_size):
            symbols = code(positions, _distributions(decoder.logits()))
            sequence[:, positions] = symbols
            decoder.advance(torch.from_numpy(symbols).long().to(model.device))
    return grid.unflatten(torch.from_numpy(sequence).long())


def _steps(model: AutoregressiveModel, batch_size: int) -> Iterator[tuple[Decoder, np.ndarray]]:
    decoder = model.wavefront_decoder(batch_size) or model.decoder(batch_size)
    for positions in decoder.steps:
        yield decoder, positions.cpu().numpy()


def _distributions(logits: Tensor) -> np.ndarray:
    """Softmax in float32; uniform where the logits are no distribution, which costs bits and loses nothing."""
    probabilities = logits.float().softmax(-1)
    if not bool(torch.isfinite(probabilities.sum())):
        broken = ~probabilities.isfinite().all(-1, keepdim=True)
        probabilities = torch.where(broken, 1 / probabilities.shape[-1], probabilities)
    return probabilities.cpu().numpy()
