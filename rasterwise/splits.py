"""Batches of pictures or codes: at random without end for training, once and in order for everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rasterwise.condition import Condition


@dataclass(frozen=True)
class Batch:
    """Some pictures, or the symbols of some.

    Attributes:
        values: uint8 images or int64 symbols, ``(B, C, H, W)``.
        labels: int64 ``(B,)``, or None where the data has no classes.
    """

    values: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(self.values[rows], None if self.labels is None else self.labels[rows])

    def to(self, device: torch.device | str) -> Batch:
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch(self.values.to(device, non_blocking=True), labels)

    def pin_memory(self) -> Batch:
        """In page-locked memory, from where a GPU copies without waiting; torch's DataLoader calls it."""
        labels = None if self.labels is None else self.labels.pin_memory()
        return Batch(self.values.pin_memory(), labels)

    @property
    def condition(self) -> Condition | None:
        """The labels as a condition."""
        return None if self.labels is None else Condition(self.labels)


class Split(Protocol):
    """A train or test split."""

    @property
    def fingerprint(self) -> str:
        """Hex digest: equal only for the same data, prepared alike, in the same order."""
        ...

    @property
    def length(self) -> int | None:
        """How many items, or None where only reading them all would tell."""
        ...

    def shuffled(
        self, batch_size: int, *, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """Batches at random without end.

        Args:
            batch_size: Items a batch, over all processes together.
            seed: The order depends on it alone.
            start: How many batches to pass over: where a resumed run goes on.
            rank: This process's number; it gets every ``world``-th item of a batch.
            world: How many processes there are.
        """
        ...

    def ordered(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Every item once, in order; of several processes each gets every ``world``-th item."""
        ...


class IndexedSplit:
    """A split whose items can be fetched by index.

    Args:
        length: How many items.
        fetch: Gives the batch of some indices.
        fingerprint: See ``Split``.
        workers: Processes that fetch ahead (0: fetch in this process).

    Example:
        >>> split = tensor_split(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1))
        >>> [batch.values.flatten().tolist() for batch in split.ordered(2)]
        [[0, 1], [2, 3], [4]]
        >>> batches = split.shuffled(5, seed=0)
        >>> sorted(next(batches).values.flatten().tolist())  # an epoch holds every item once
        [0, 1, 2, 3, 4]
    """

    def __init__(
        self, length: int, fetch: Callable[[list[int]], Batch], fingerprint: str, workers: int = 0
    ) -> None:
        self._length = length
        self._fetch = fetch
        self._fingerprint = fingerprint
        self._workers = workers

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def length(self) -> int:
        return self._length

    def __getitems__(self, indices: list[int]) -> Batch:  # torch's DataLoader asks for a batch at once
        return self._fetch(indices)

    def __getitem__(self, index: int) -> Batch:
        return self._fetch([index])

    def shuffled(
        self, batch_size: int, *, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        return iter(self._loader(ShuffledIndices(self._length, batch_size, seed, start, rank, world)))

    def ordered(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        indices = range(rank, self._length, world)
        chunks = [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]
        return iter(self._loader(chunks))

    def _loader(self, batches: Iterable[list[int]]) -> DataLoader:
        return DataLoader(
            self,  # type: ignore[arg-type]  # __getitem__ and __getitems__ are all it uses
            batch_sampler=batches,
            collate_fn=_as_fetched,  # type: ignore[arg-type]
            num_workers=self._workers,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: the loader's seeds are never drawn from the training run's random state.
            generator=torch.Generator(),
        )


def _as_fetched(batch: Batch) -> Batch:
    return batch


class ShuffledIndices:
    """Index batches cut from one endless stream of permutations, each of them an epoch."""

    def __init__(self, length: int, batch_size: int, seed: int, start: int, rank: int, world: int) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        position, epoch, order = self.start * self.batch_size, -1, np.empty(0, dtype=np.int64)
        while True:
            batch: list[int] = []
            while len(batch) < self.batch_size:
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
                offset = position % self.length
                taken = order[offset : offset + self.batch_size - len(batch)]
                batch += taken.tolist()
                position += len(taken)
            yield batch[self.rank :: self.world]


def tensor_split(values: Tensor, labels: Tensor | None = None) -> IndexedSplit:
    """A split held in memory: ``values`` ``(N, C, H, W)`` and perhaps ``labels`` ``(N,)``."""
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    digest.update(values.contiguous().numpy().tobytes())
    if labels is not None:
        digest.update(labels.contiguous().numpy().tobytes())

    def fetch(indices: list[int]) -> Batch:
        rows = torch.as_tensor(indices)
        return Batch(values[rows], None if labels is None else labels[rows])

    return IndexedSplit(len(values), fetch, digest.hexdigest())
