"""The walk of a transformer: a site passes its layers once, over the keys and values of the sites before it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from rasterwise.decoding.decoder import Decoder, Stretch
from rasterwise.decoding.kv_cache import AttentionCache, BucketedCache
from rasterwise.symbols.grid import Grid


class AttentionDecoder(Decoder):
    """A walk over a transformer's layers. A subclass makes its buffers, and computes in ``_pass_layers``.

    Args:
        grid: The grid that is walked.
        batch_size: B.
        cache: Of all layers, empty.
        stream: ``(B, D)``: what enters the layers at the first site.
        symbol_vectors: ``(K, D)``: what a symbol enters the layers as, at the site after its own.
        head: ``(D, K)``, for what ``_normalised`` gives.
    """

    def __init__(
        self,
        grid: Grid,
        batch_size: int,
        *,
        cache: AttentionCache,
        stream: Tensor,
        symbol_vectors: Tensor,
        head: Tensor,
    ) -> None:
        super().__init__(grid, batch_size)
        self.cache = cache
        self.stream = stream
        self.symbol_vectors = symbol_vectors
        self.head = head
        self.entered = False  # whether the stream has passed the layers, its keys and values in the cache

    def for_replay(self) -> list[Stretch]:
        self.cache = bucketed = BucketedCache(self.cache.memory)
        return bucketed.stretches

    @torch.no_grad()
    def _logits(self) -> Tensor:
        self._enter()
        return torch.mm(self._normalised(), self.head)

    @torch.no_grad()
    def _push(self, symbols: Tensor) -> None:
        if self.index + 1 == self.grid.size:
            return
        self._enter()  # also where nobody asked for this site's logits, later sites attend to it
        torch.index_select(self.symbol_vectors, 0, symbols, out=self.stream)
        self.entered = False

    def _enter(self) -> None:
        if not self.entered:
            self.cache.go_to(self.index)
            self._pass_layers()
            self.entered = True

    @abstractmethod
    def _pass_layers(self) -> None:
        """Take the stream of the cache's current site through the layers, in place."""

    @abstractmethod
    def _normalised(self) -> Tensor:
        """The stream ``(B, D)`` as a layer's first matrix reads it."""
