"""KV caches: the keys and values of the positions so far, and one query that attends to them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from rasterwise.decoding.decoder import CaptureRegion

BUCKET = 64
"""Positions that one capture of a `BucketedKVCache` serves."""


class AttentionCache(ABC):
    """What the layers of a decoder need of a cache, whatever its current positions are."""

    memory: Tensor

    @abstractmethod
    def go_to(self, start: int, count: int = 1) -> None:
        """Make a position, or ``count`` of them, the current ones; all positions before them have been."""

    @abstractmethod
    def row_of(self, table: Tensor) -> Tensor:
        """The current positions' rows of a table ``(N, ...)``; where one row serves all images, it alone."""

    @abstractmethod
    def attend(self, layer: int, qkv: Tensor, bias: Tensor | None = None) -> Tensor:
        """Keep the current positions' keys and values, and mix the values by each query's softmax.

        Args:
            layer: Which.
            qkv: Query, scaled, key and value, ``(R, 3, h)``, R being images times positions times heads.
            bias: Added to the scores, broadcast to ``(R, 1, N)``: −inf where a query does not attend.

        Returns:
            The mix ``(R, 1, h)``, good until the next call.
        """


class KVCache(AttentionCache):
    """The cache of one decoding. One position becomes the current one, and then attends once in each layer.

    It reads what the positions before it have filled, and so computes no more than it needs: for decoding that
    the host dispatches.

    Args:
        memory: Of keys and values, ``(depth, 2, R, N, h)`` for R rows (images times heads), N positions and h
            features a head. It holds nothing yet but the keys and values of a prefix.
        filled: Positions of the prefix. The first position to become the current one comes after them.
    """

    def __init__(self, memory: Tensor, filled: int = 0) -> None:
        self.memory, self.filled = memory, filled
        self.keys, self.values = memory[:, 0].transpose(2, 3), memory[:, 1]
        self.entries = memory.permute(3, 0, 2, 1, 4).unbind(0)  # each (depth, R, 2, h)
        _, _, self.rows, self.positions, _ = memory.shape
        self.all_scores, self.all_attention = memory.new_empty(2, self.rows * self.positions)
        self.mixed = memory.new_empty(self.rows, 1, memory.shape[-1])
        self.qkv = self.query = self.entry = memory.new_empty(0)

    def go_to(self, start: int, count: int = 1) -> None:
        self.position = start
        self.new_entries = self.entries[start].unbind(0)
        self._open(start + 1)

    def expect(self, qkv: Tensor) -> None:
        """Make the views of what is given to ``attend`` once, where it is the same memory at every call."""
        self.qkv, self.query, self.entry = qkv, qkv[:, :1], qkv[:, 1:]

    def row_of(self, table: Tensor) -> Tensor:
        return table[self.position]

    def attend(self, layer: int, qkv: Tensor, bias: Tensor | None = None) -> Tensor:
        query, entry = (self.query, self.entry) if qkv is self.qkv else (qkv[:, :1], qkv[:, 1:])
        self.new_entries[layer].copy_(entry)
        if bias is None:
            torch.bmm(query, self.filled_keys[layer], out=self.scores)
        else:
            torch.baddbmm(self._of_open(bias), query, self.filled_keys[layer], out=self.scores)
        return self._mix(layer)

    def _of_open(self, bias: Tensor) -> Tensor:
        """A bias of all positions for those that are laid out."""
        return bias[..., : self.scores.shape[2]]

    def _mix(self, layer: int) -> Tensor:
        torch.softmax(self.scores, -1, out=self.attention)
        return torch.bmm(self.attention, self.filled_values[layer], out=self.mixed)

    def _open(self, positions: int) -> None:
        """Lay out the views of the first positions, for all layers."""
        rows = self.rows
        self.filled_keys = self.keys.narrow(3, 0, positions).unbind(0)
        self.filled_values = self.values.narrow(2, 0, positions).unbind(0)
        self.scores = self.all_scores[: rows * positions].view(rows, 1, positions)
        self.attention = self.all_attention[: rows * positions].view(rows, 1, positions)


class BucketedKVCache(KVCache):
    """The cache of a decoding that is captured: a position reads as much as the last one of its bucket.

    Positions of a bucket do the same operations on the same tensors. Which of them is the current one is the
    content of a tensor; those after it weigh exp(−∞) = 0.

    Args:
        memory: As above.
        filled: As above.
    """

    def __init__(self, memory: Tensor, filled: int = 0) -> None:
        super().__init__(memory, filled)
        memory[:, :, :, filled:].zero_()  # what is not yet written counts, 0 times
        self.layers = memory.unbind(0)
        self.current = torch.full((1,), filled - 1, device=memory.device)
        self.mask = memory.new_full((self.positions,), -torch.inf)
        self.mask[:filled] = 0
        starts = range(filled - filled % BUCKET, self.positions, BUCKET)
        self.regions = [
            CaptureRegion(1, min(start + BUCKET, self.positions) - max(start, filled)) for start in starts
        ]

    def go_to(self, start: int, count: int = 1) -> None:
        self.current.add_(1)
        self.mask.index_fill_(0, self.current, 0)
        self._open(min((start // BUCKET + 1) * BUCKET, self.positions))

    def row_of(self, table: Tensor) -> Tensor:
        return table.index_select(0, self.current)

    def attend(self, layer: int, qkv: Tensor, bias: Tensor | None = None) -> Tensor:
        self.layers[layer].index_copy_(2, self.current, qkv[:, 1:].transpose(0, 1)[:, :, None])
        mask = self._of_open(self.mask if bias is None else self.mask + bias)
        torch.baddbmm(mask, qkv[:, :1], self.filled_keys[layer], out=self.scores)
        return self._mix(layer)
