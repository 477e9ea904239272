"""Decoding a transformer: a position passes the layers once, over the keys and values of those before it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from rasterwise.decoding.decoder import CaptureRegion, Decoder
from rasterwise.decoding.kv_cache import AttentionCache, BucketedKVCache, KVCache
from rasterwise.decoding.packed_linear import PackedLinear
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.order import raster_order


class TransformerDecoder(Decoder):
    """Decodes a transformer in raster order. A subclass computes the layers in ``_pass_layers``.

    Args:
        grid: The grid that is decoded.
        batch_size: B.
        cache: Of all layers, for the positions of a prefix, which it holds, and those of the grid.
        stream: ``(B, D)``: what enters the layers at the grid's first position; its own copy.
        symbol_vectors: ``(K, D)``: what a symbol enters the layers as, at the position after its own.
        head: From ``_pass_layers`` to the logits.
    """

    def __init__(
        self,
        grid: Grid,
        batch_size: int,
        *,
        cache: KVCache,
        stream: Tensor,
        symbol_vectors: Tensor,
        head: PackedLinear,
    ) -> None:
        super().__init__(grid, batch_size, raster_order(grid, stream.device))
        self.cache: AttentionCache = cache
        self.prefix = cache.filled
        self.stream = stream
        self.symbol_vectors = symbol_vectors
        self.head = head

    def capture_regions(self) -> list[CaptureRegion]:
        self.cache = bucketed = BucketedKVCache(self.cache.memory, self.prefix)
        return bucketed.regions

    def pass_positions(self, stream: Tensor) -> Tensor:
        """Logits ``(M, K)`` of the cache's current positions, of what enters the layers there, ``(M, D)``."""
        return self.head(self._pass_layers(stream))

    def _logits(self) -> Tensor:
        self.cache.go_to(self.prefix + self.index)
        return self.pass_positions(self.stream)[:, None]

    def _advance(self, symbols: Tensor) -> None:
        torch.index_select(self.symbol_vectors, 0, symbols[:, 0], out=self.stream)

    @abstractmethod
    def _pass_layers(self, stream: Tensor) -> Tensor:
        """Take what enters at the cache's current positions, ``(M, D)``, through the layers.

        Returns:
            ``(M, D)``, what the head reads.
        """
