"""Grids to streams of bytes and back, by the same cached decoder both ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import constriction
import numpy as np
import torch
from torch import Tensor

from rasterwise.decoding.decoder import Decoder
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import evaluating
from rasterwise.symbols.grid import Grid

FAMILY = constriction.stream.model.Categorical(perfect=False)
"""Probabilities in 24 bits: what a symbol is given at least costs 24 bits, and K levels cost K · 2⁻²⁴ of the rate."""

SMALLEST = 2.0**-126

STREAM_BITS = 2**17
"""Small grids share a stream of so many bits, uncompressed: a stream ends at a whole word of 32 bits."""


def grids_per_stream(grid: Grid) -> int:
    """How many grids share a stream. What is damaged costs all of a stream; grids of 16 kB and more have their own."""
    return max(1, math.ceil(STREAM_BITS / (grid.size * math.log2(grid.levels))))


class StreamEncoder:
    """Encodes grids of one size, batch by batch.

    Args:
        model: Whose decoder gives the probabilities.
        together: Grids that share a stream, in their order, across batches.
    """

    def __init__(self, model: AutoregressiveModel, together: int) -> None:
        self.model, self.together = model, together
        self.coders: list[Any] = []
        self.grids = 0

    def encode(self, symbols: Tensor) -> Tensor:
        """Encode a batch; what decodes it must be given as many at once.

        Args:
            symbols: int64 ``(B, C, H, W)``.

        Returns:
            −log2 p of each grid under the probabilities that it was coded with, float64 ``(B,)``.
        """
        values = self.model.grid.flatten(symbols).int().cpu().numpy()
        coded = np.empty(values.shape, np.float32)
        every = np.arange(len(values))[:, None]
        shares = list(_shares(self.grids, len(values), self.together))
        self.grids += len(values)
        while len(self.coders) < math.ceil(self.grids / self.together):
            self.coders.append(constriction.stream.queue.RangeEncoder())

        def code(positions: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
            step = values[:, positions]
            coded[:, positions] = probabilities[every, np.arange(len(positions)), step]
            for stream, rows in shares:
                distributions = probabilities[rows].reshape(-1, probabilities.shape[-1])
                self.coders[stream].encode(step[rows].ravel(), FAMILY, distributions)
            return step

        _through(self.model, len(values), code)
        return torch.from_numpy(-np.log2(coded.clip(min=SMALLEST).astype(np.float64)).sum(1))

    def streams(self) -> list[bytes]:
        """All streams, each of ``together`` grids, the last of what is left."""
        return [coder.get_compressed().astype("<u4").tobytes() for coder in self.coders]


class StreamDecoder:
    """Decodes what a ``StreamEncoder`` has encoded, in the same batches.

    Args:
        model: The one that encoded, on the same kind of machine, with as many threads.
        streams: All of them; None for one whose grids are not asked for. A stream that is damaged or cut decodes to
            other symbols, which a checksum finds; the rest are right.
        together: Grids that share a stream.
    """

    def __init__(self, model: AutoregressiveModel, streams: Sequence[bytes | None], together: int) -> None:
        self.model, self.together = model, together
        self.coders = [None if stream is None else _opened(stream) for stream in streams]
        self.grids = 0

    def decode(self, batch_size: int) -> Tensor:
        """The next grids, int64 ``(B, C, H, W)``."""
        shares = list(_shares(self.grids, batch_size, self.together))
        self.grids += batch_size

        def code(positions: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
            step = np.zeros((batch_size, len(positions)), np.int32)
            for stream, rows in shares:
                coder = self.coders[stream]
                if coder is not None:
                    distributions = probabilities[rows].reshape(-1, probabilities.shape[-1])
                    step[rows] = coder.decode(FAMILY, distributions).reshape(-1, len(positions))
            return step

        return _through(self.model, batch_size, code)


def _shares(first: int, count: int, together: int) -> Iterator[tuple[int, slice]]:
    """The streams of grids ``first`` to ``first + count``, each with its rows of the batch."""
    row = 0
    while row < count:
        stream, taken = divmod(first + row, together)
        end = min(count, row + together - taken)
        yield stream, slice(row, end)
        row = end


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
