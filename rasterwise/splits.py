"""Batches of pictures or codes: at random without end for training, once and in order for everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rasterwise.condition import Condition
from rasterwise.loading import BrokenPictures, loaded


@dataclass(frozen=True)
class Batch:
    """Some pictures, or the symbols of some.

    Attributes:
        values: uint8 images or int64 symbols, ``(B, C, H, W)``.
        labels: int64 ``(B,)``, or None where the data has no classes.
        numbers: int64 ``(B,)`` on the CPU, which of the split's items these are; read in order alone.
    """

    values: Tensor
    labels: Tensor | None = None
    numbers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        labels = None if self.labels is None else self.labels[rows]
        return Batch(self.values[rows], labels, None if self.numbers is None else self.numbers[rows])

    def to(self, device: torch.device | str) -> Batch:
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch(self.values.to(device, non_blocking=True), labels, self.numbers)

    def pin_memory(self) -> Batch:
        """In page-locked memory, from where a GPU copies without waiting; torch's DataLoader calls it."""
        labels = None if self.labels is None else self.labels.pin_memory()
        return Batch(self.values.pin_memory(), labels, self.numbers)

    @property
    def condition(self) -> Condition | None:
        """The labels as a condition."""
        return None if self.labels is None else Condition(self.labels)


Change = Callable[[Tensor, list[int]], Tensor]
"""Images and the number of each one's draw to changed images: an augmentation with its seed."""


class Split(Protocol):
    """A train or test split."""

    @property
    def fingerprint(self) -> str:
        """Hex digest: equal only for the same data, prepared alike, in the same order."""
        ...

    @property
    def length(self) -> int:
        """How many items; of those that are read as they are needed, broken pictures among them."""
        ...

    @property
    def broken(self) -> BrokenPictures:
        """The broken pictures that this process has come upon and left out."""
        ...

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
        """Batches at random without end, each epoch every item once.

        Where broken pictures are left out, another whole one takes the place of each, always the same: what a
        batch holds depends on nothing but the data, the batch size and the seed.

        Args:
            batch_size: Items a batch, over all processes together.
            seed: The order depends on it alone.
            start: How many batches to pass over: where a resumed run goes on.
            rank: This process's number; it gets every ``world``-th item of a batch.
            world: How many processes there are.
            change: Applied where pictures are read, in the workers; draws are numbered through all epochs.
        """
        ...

    def ordered(
        self, batch_size: int, *, rank: int = 0, world: int = 1, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """Every item once, in order; of several processes each gets every ``world``-th item.

        Where broken pictures are left out, a batch with one is smaller.

        Args:
            batch_size: Items a batch, in each process.
            rank: This process's number.
            world: How many processes there are.
            start: The first item.
            stop: The item after the last one; by default the split's length.
        """
        ...


@dataclass(frozen=True)
class Fetched:
    """What a read gave.

    Attributes:
        batch: The items; None where there are none.
        broken: Broken pictures that were come upon, by their number: what is wrong with each.
        error: What the reading ended with; the process that asked raises it as an InputError.
    """

    batch: Batch | None
    broken: dict[int, str]
    error: str = ""

    def pin_memory(self) -> Fetched:
        """See ``Batch``."""
        return Fetched(self.batch.pin_memory() if self.batch else None, self.broken, self.error)


class Items(Protocol):
    """Items that can be fetched by number."""

    def __len__(self) -> int: ...

    def fetch(self, numbers: list[int], *, replace: bool) -> Fetched:
        """The items of some numbers, in their order.

        Args:
            numbers: Which.
            replace: Another item takes the place of each broken one; else it is left out.
        """
        ...


class IndexedSplit:
    """A split whose items can be fetched by number.

    Args:
        items: The items.
        fingerprint: See ``Split``.
        workers: Processes that fetch ahead (0: fetch in this process).
        held: The items are in memory, so that workers are of use only where they are changed.
        broken: Pictures left out before.

    Example:
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
        broken: BrokenPictures | None = None,
    ) -> None:
        self._items, self._fingerprint = items, fingerprint
        self._workers, self._held = workers, held
        self._broken = BrokenPictures() if broken is None else broken

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def length(self) -> int:
        return len(self._items)

    @property
    def broken(self) -> BrokenPictures:
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
        yield from self._loaded(_ChangedReads(self._items, change), batches, workers)

    def ordered(
        self, batch_size: int, *, rank: int = 0, world: int = 1, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        indices = range(self.length)[start:stop][rank::world]
        chunks = [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]
        yield from self._loaded(_NumberedReads(self._items), chunks, 0 if self._held else self._workers)

    def _loaded(self, reads: object, batches: Iterable[object], workers: int) -> Iterator[Batch]:
        for fetched in loaded(reads, batches, workers):
            self._broken.note(fetched)
            if fetched.batch is not None:
                yield fetched.batch


@dataclass(frozen=True)
class _ChangedReads:
    """What workers do for a batch at random: ``(draw, item)`` pairs to items, changed as the draws say."""

    items: Items
    change: Change | None

    def __getitems__(self, draws: list[tuple[int, int]]) -> Fetched:  # torch's DataLoader asks for a batch
        fetched = self.items.fetch([item for _, item in draws], replace=True)
        if self.change is None or fetched.batch is None:
            return fetched
        changed = self.change(fetched.batch.values, [draw for draw, _ in draws])
        return Fetched(Batch(changed, fetched.batch.labels), fetched.broken)


@dataclass(frozen=True)
class _NumberedReads:
    """What workers do for a batch in order."""

    items: Items

    def __getitems__(self, numbers: list[int]) -> Fetched:
        return self.items.fetch(numbers, replace=False)


class ShuffledIndices:
    """Batches of (draw, item) pairs, cut from one endless stream of permutations, each of them an epoch."""

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
    """Items in memory: ``values`` ``(N, C, H, W)`` and perhaps ``labels`` ``(N,)``."""

    values: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.values)

    def fetch(self, numbers: list[int], *, replace: bool) -> Fetched:
        rows = torch.as_tensor(numbers, dtype=torch.int64)
        labels = None if self.labels is None else self.labels[rows]
        return Fetched(Batch(self.values[rows], labels, None if replace else rows), {})


def tensor_split(
    values: Tensor, labels: Tensor | None = None, *, workers: int = 0, broken: BrokenPictures | None = None
) -> IndexedSplit:
    """A split held in memory.

    Args:
        values: ``(N, C, H, W)``.
        labels: int64 ``(N,)``.
        workers: Processes that change items ahead, where they are changed at all.
        broken: Pictures that were left out of it.
    """
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    digest.update(values.contiguous().numpy().tobytes())
    if labels is not None:
        digest.update(labels.contiguous().numpy().tobytes())
    return IndexedSplit(TensorItems(values, labels), digest.hexdigest(), workers, held=True, broken=broken)
