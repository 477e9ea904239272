"""Splits whose items are fetched by index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rasterwise.data.sources.captions import chosen_caption
from rasterwise.data.splits import Batch, Captions, Change, Fetched, Split, joined
from rasterwise.data.workers import BrokenImages, loaded


class Items(Protocol):
    """Items that can be fetched by index."""

    def __len__(self) -> int: ...

    def fetch(self, indices: list[int], *, replace: bool) -> Fetched:
        """The items of some indices, in their order.

        Args:
            indices: Which.
            replace: Replace each broken item by another one; else it is left out.
        """
        ...


class IndexedSplit:
    """A split whose items can be fetched by index.

    Args:
        items: The items.
        fingerprint: See ``Split``.
        workers: Processes that fetch ahead (0: fetch in this process).
        held: The items are in memory, so that workers are of use only where items are changed.
        broken: Images that have been left out already.

    Example:
        >>> import torch
        >>> split = tensor_split(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1))
        >>> [batch.values.flatten().tolist() for batch in split.ordered(2)]
        [[0, 1], [2, 3], [4]]
        >>> batches = split.shuffled(5, seed=0)
        >>> sorted(next(batches).values.flatten().tolist())  # an epoch holds every item once
        [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        items: Items,
        fingerprint: str,
        workers: int = 0,
        *,
        held: bool = False,
        broken: BrokenImages | None = None,
    ) -> None:
        self._items, self._fingerprint = items, fingerprint
        self._workers, self._held = workers, held
        self._broken = BrokenImages() if broken is None else broken

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def length(self) -> int:
        return len(self._items)

    @property
    def broken(self) -> BrokenImages:
        return self._broken

    def shuffled(
        self,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        change: Change | None = None,
    ) -> Iterator[Batch]:
        batches = ShuffledIndices(self.length, batch_size, seed, start, rank, world)
        workers = 0 if self._held and change is None else self._workers
        yield from self._loaded(_ChangedReads(self._items, change, seed), batches, workers)

    def ordered(
        self, batch_size: int, *, rank: int = 0, world: int = 1, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        indices = range(self.length)[start:stop][rank::world]
        chunks = [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]
        yield from self._loaded(_IndexedReads(self._items), chunks, 0 if self._held else self._workers)

    def _loaded(self, reads: object, batches: Iterable[object], workers: int) -> Iterator[Batch]:
        for fetched in loaded(reads, batches, workers):
            self._broken.note(fetched)
            if fetched.batch is not None:
                yield fetched.batch


@dataclass(frozen=True)
class _ChangedReads:
    """What workers do for a shuffled batch: ``(draw, item)`` pairs to items, each changed by its draw."""

    items: Items
    change: Change | None
    seed: int

    def __getitems__(self, draws: list[tuple[int, int]]) -> Fetched:  # torch's DataLoader asks for a batch
        fetched = self.items.fetch([item for _, item in draws], replace=True)
        batch = fetched.batch
        if batch is not None and batch.captions is not None:
            of_draw = zip(batch.captions, draws, strict=True)
            batch = replace(batch, captions=tuple((self._caption(some, *draw),) for some, draw in of_draw))
        if batch is not None and self.change is not None:
            batch = replace(batch, values=self.change(batch.values, [draw for draw, _ in draws]))
        return replace(fetched, batch=batch)

    def _caption(self, captions: tuple[str, ...], draw: int, item: int) -> str:
        return chosen_caption(captions, seed=self.seed, epoch=draw // len(self.items), index=item)


@dataclass(frozen=True)
class _IndexedReads:
    """What workers do for a batch that is read in order."""

    items: Items

    def __getitems__(self, indices: list[int]) -> Fetched:
        return self.items.fetch(indices, replace=False)


class ShuffledIndices:
    """Batches of (draw, item) pairs, cut from an endless stream of permutations. Each permutation is an epoch."""

    def __init__(self, length: int, batch_size: int, seed: int, start: int, rank: int, world: int) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        position, epoch, order = self.start * self.batch_size, -1, np.empty(0, dtype=np.int64)
        while True:
            first, batch = position, list[int]()
            while len(batch) < self.batch_size:
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
                offset = position % self.length
                taken = order[offset : offset + self.batch_size - len(batch)]
                batch += taken.tolist()
                position += len(taken)
            yield list(enumerate(batch, first))[self.rank :: self.world]


@dataclass(frozen=True)
class TensorItems:
    """Items in memory: ``values`` ``(N, C, H, W)``, and perhaps ``labels`` ``(N,)`` and ``captions``."""

    values: Tensor
    labels: Tensor | None
    captions: Captions | None = None

    def __len__(self) -> int:
        return len(self.values)

    def fetch(self, indices: list[int], *, replace: bool) -> Fetched:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        labels = None if self.labels is None else self.labels[rows]
        captions = None if self.captions is None else tuple(self.captions[index] for index in indices)
        return Fetched(Batch(self.values[rows], labels, None if replace else rows, captions), {})


def tensor_split(
    values: Tensor,
    labels: Tensor | None = None,
    captions: Captions | None = None,
    *,
    workers: int = 0,
    broken: BrokenImages | None = None,
) -> IndexedSplit:
    """A split held in memory.

    Args:
        values: ``(N, C, H, W)``.
        labels: int64 ``(N,)``.
        captions: Of each item, one or more.
        workers: Processes that change items ahead, where they are changed at all.
        broken: Images that were left out of it.
    """
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    digest.update(values.contiguous().numpy().tobytes())
    if labels is not None:
        digest.update(labels.contiguous().numpy().tobytes())
    if captions is not None:
        digest.update(repr(captions).encode())
    items = TensorItems(values, labels, captions)
    return IndexedSplit(items, digest.hexdigest(), workers, held=True, broken=broken)


def first_of(split: Split, count: int) -> Batch:
    """The first items of a split as one batch, or all of them for 0."""
    parts: list[Batch] = []
    for batch in split.ordered(1024):
        parts.append(batch)
        if count and sum(map(len, parts)) >= count:
            break
    whole = joined(parts)
    return whole[:count] if count else whole
