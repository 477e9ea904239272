"""Keys and values of the sites that a walk has passed, and one query that attends to them."""

from __future__ import annotations

import torch
from torch import Tensor

from rasterwise.decoding.decoder import Stretch

BUCKET = 64
"""Sites that one recording of a `BucketedCache` serves."""


class AttentionCache:
    """The cache of a walk. A site goes to its place, and then attends once in each layer.

    A site reads what the sites before it have filled, and so computes no more than it needs: for a walk that
    the host dispatches.

    Args:
        memory: Of keys and values, ``(depth, 2, R, N, h)`` for R rows (images times heads), N sites and h
            features a head. It holds nothing yet.
    """

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        self.keys, self.values = memory[:, 0].transpose(2, 3), memory[:, 1]
        self.entries = memory.unbind(3)  # each (depth, 2, R, h)
        _, _, self.rows, self.sites, _ = memory.shape
        self.all_scores, self.all_attention = memory.new_empty(2, self.rows * self.sites)

    def go_to(self, index: int) -> None:
        """Make a site the current one; every site in its turn."""
        self.index = index
        self.places = self.entries[index].unbind(0)
        self._open(index + 1)

    def row_of(self, table: Tensor) -> Tensor:
        """The current site's row of a table ``(N, ...)``, as ``(...)`` or ``(1, ...)``."""
        return table[self.index]

    def attend(self, layer: int, query: Tensor, entry: Tensor, out: Tensor) -> None:
        """Keep the current site's key and value, and mix the values by the query's softmax.

        Args:
            layer: Which.
            query: ``(R, 1, h)``, scaled.
            entry: Key and value ``(2, R, h)``.
            out: Where the mix goes, ``(R, 1, h)``.
        """
        self.places[layer].copy_(entry)
        torch.bmm(query, self.filled_keys[layer], out=self.scores)
        torch.softmax(self.scores, -1, out=self.attention)
        torch.bmm(self.attention, self.filled_values[layer], out=out)

    def _open(self, sites: int) -> None:
        """Lay out the views of the first sites, for all layers."""
        rows = self.rows
        self.filled_keys = self.keys.narrow(3, 0, sites).unbind(0)
        self.filled_values = self.values.narrow(2, 0, sites).unbind(0)
        self.scores = self.all_scores[: rows * sites].view(rows, 1, sites)
        self.attention = self.all_attention[: rows * sites].view(rows, 1, sites)


class BucketedCache(AttentionCache):
    """The cache of a walk that is recorded: a site reads as much as the last one of its bucket.

    Sites of a bucket do the same operations on the same tensors. Where they are is the content of one; sites
    that are not yet passed weigh exp(−∞) = 0.

    Args:
        memory: As above.
    """

    def __init__(self, memory: Tensor) -> None:
        super().__init__(memory.zero_())  # what is not yet written counts, 0 times
        self.layers = memory.unbind(0)
        self.place = torch.full((1,), -1, device=memory.device)
        self.unseen = memory.new_full((self.sites,), -torch.inf)
        self.stretches = [
            Stretch(1, min(BUCKET, self.sites - start)) for start in range(0, self.sites, BUCKET)
        ]

    def go_to(self, index: int) -> None:
        self.place.add_(1)
        self.unseen.index_fill_(0, self.place, 0)
        self._open(min((index // BUCKET + 1) * BUCKET, self.sites))

    def row_of(self, table: Tensor) -> Tensor:
        return table.index_select(0, self.place)

    def attend(self, layer: int, query: Tensor, entry: Tensor, out: Tensor) -> None:
        self.layers[layer].index_copy_(2, self.place, entry[:, :, None])
        unseen = self.unseen[: self.scores.shape[2]]
        torch.baddbmm(unseen, query, self.filled_keys[layer], out=self.scores)
        torch.softmax(self.scores, -1, out=self.attention)
        torch.bmm(self.attention, self.filled_values[layer], out=out)
