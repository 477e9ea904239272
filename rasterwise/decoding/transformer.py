"""Decoding a transformer: a position passes the layers once, over the keys and values of those before it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from rasterwise.decoding.decoder import CaptureRegion, Decoder
from rasterwise.decoding.kv_cache import BucketedKVCache, KVCache
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.order import raster_order


class TransformerDecoder(Decoder):
    """Decodes a transformer in raster order. A subclass makes its buffers, and computes in ``_pass_layers``.

    Args:
        grid: The grid that is decoded.
        batch_size: B.
        cache: Of all layers, empty.
        stream: ``(B, D)``: what enters the layers at the first position.
        symbol_vectors: ``(K, D)``: what a symbol enters the layers as, at the position after its own.
        head: ``(D, K)``, for what ``_normalised`` gives.
    """

    def __init__(
        self,
        grid: Grid,
        batch_size: int,
        *,
        cache: KVCache,
        stream: Tensor,
        symbol_vectors: Tensor,
        head: Tensor,
    ) -> None:
        super().__init__(grid, batch_size, raster_order(grid, stream.device))
        self.cache = cache
        self.stream = stream
        self.symbol_vectors = symbol_vectors
        self.head = head

    def capture_regions(self) -> list[CaptureRegion]:
        self.cache = bucketed = BucketedKVCache(self.cache.memory)
        return bucketed.regions

    def _logits(self) -> Tensor:
        self.cache.go_to(self.index)
        self._pass_layers()
        return torch.mm(self._normalised(), self.head)[:, None]

    def _advance(self, symbols: Tensor) -> None:
        torch.index_select(self.symbol_vectors, 0, symbols[:, 0], out=self.stream)

    @abstractmethod
    def _pass_layers(self) -> None:
        """Take the stream of the cache's current position through the layers, in place."""

    @abstractmethod
    def _normalised(self) -> Tensor:
        """The stream ``(B, D)`` as a layer's first matrix reads it."""
