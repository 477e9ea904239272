"""Batches of images or codes: shuffled and without end for training, once and in order for everything else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from rasterwise.data.workers import BrokenImages
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.text import TextBatch

Captions: TypeAlias = tuple[tuple[str, ...], ...]
"""Of each of some items, its captions."""


@dataclass(frozen=True)
class Batch:
    """Some images, or the symbols of some; or some documents.

    Attributes:
        values: uint8 images or int64 symbols, ``(B, C, H, W)``; ids of documents, int64 ``(B, T)``.
        labels: int64 ``(B,)``, or None where the data has no classes.
        indices: int64 ``(B,)`` on the CPU, which of the split's items these are; None where they are shuffled.
        captions: Of each item: all that it has, in their order; of shuffled items the one that was drawn. None where
            they are not read.
        texts: A text for each item, in tokens; None where there are none.
        last_part: False for a part of a training batch that other parts follow, where gradients are accumulated.
            What learns without gradients (an EMA codebook) then gathers the parts and learns at the last one.
    """

    values: Tensor
    labels: Tensor | None = None
    indices: Tensor | None = None
    captions: Captions | None = None
    texts: TextBatch | None = None
    last_part: bool = True

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        labels = None if self.labels is None else self.labels[rows]
        indices = None if self.indices is None else self.indices[rows]
        captions = self.captions
        if captions is not None:
            chosen = torch.arange(len(captions))[rows.cpu() if isinstance(rows, Tensor) else rows]
            captions = tuple(captions[row] for row in chosen.tolist())
        texts = None if self.texts is None else self.texts[rows]
        return Batch(self.values[rows], labels, indices, captions, texts)

    def to(self, device: torch.device | str) -> Batch:
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        texts = None if self.texts is None else self.texts.to(device)
        return replace(self, values=self.values.to(device, non_blocking=True), labels=labels, texts=texts)

    def pin_memory(self) -> Batch:
        """In page-locked memory, from where a GPU copies without waiting; torch's DataLoader calls it."""
        labels = None if self.labels is None else self.labels.pin_memory()
        texts = None if self.texts is None else self.texts.pin_memory()
        return replace(self, values=self.values.pin_memory(), labels=labels, texts=texts)

    def share_memory(self) -> Batch:
        """In memory that other processes see; RuntimeError where there is too little of it."""
        for tensor in (self.values, self.labels, self.indices):
            if tensor is not None:
                tensor.share_memory_()
        if self.texts is not None:
            self.texts.share_memory()
        return self

    @property
    def condition(self) -> Condition | None:
        """The labels as a condition."""
        return None if self.labels is None else Condition(self.labels)


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches as one, without the indices."""
    labels = [batch.labels for batch in batches if batch.labels is not None]
    captions = [batch.captions for batch in batches if batch.captions is not None]
    texts = [batch.texts for batch in batches if batch.texts is not None]
    return Batch(
        torch.cat([batch.values for batch in batches]),
        torch.cat(labels) if labels else None,
        captions=tuple(itertools.chain.from_iterable(captions)) if captions else None,
        texts=TextBatch.of([text for batch in texts for text in batch.each()]) if texts else None,
    )


Change = Callable[[Tensor, list[int]], Tensor]
"""An augmentation with its seed: images and the index of each one's draw, to changed images."""


class Split(Protocol):
    """A train or test split."""

    @property
    def fingerprint(self) -> str:
        """Hex digest, equal only for the same data, prepared alike and in the same order."""
        ...

    @property
    def length(self) -> int:
        """How many items there are; where they are read as they are needed, broken ones count too."""
        ...

    @property
    def broken(self) -> BrokenImages:
        """The broken images that this process has found and left out."""
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
        """Shuffled batches without end. Every epoch holds every item once.

        Of an item's k captions each is drawn once in every k epochs.

        Where broken images are left out, each is replaced by a whole one, always by the same: what a batch holds
        depends on the data, the batch size and the seed alone.

        Args:
            batch_size: Items a batch, over all processes together.
            seed: The order depends on it alone.
            start: How many batches to pass over, where a resumed run goes on.
            rank: The index of this process; it gets every ``world``-th item of a batch.
            world: How many processes there are.
            change: Applied where images are read, in the workers; the indices of draws run on through all epochs.
        """
        ...

    def ordered(
        self, batch_size: int, *, rank: int = 0, world: int = 1, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """Every item once, in order. Of several processes, each gets every ``world``-th item.

        Where broken images are left out, a batch with one is smaller.

        Args:
            batch_size: Items a batch, in each process.
            rank: The index of this process.
            world: How many processes there are.
            start: The first item.
            stop: The item after the last one; by default the split's length.
        """
        ...


@dataclass(frozen=True)
class Fetched:
    """The result of a read.

    Attributes:
        batch: The items; None where there are none.
        broken: What is wrong with each broken image that was found, by its index.
        error: The message of the InputError that ended the reading; the process that asked raises it.
    """

    batch: Batch | None
    broken: dict[int, str]
    error: str = ""

    def pin_memory(self) -> Fetched:
        """See ``Batch``."""
        return Fetched(self.batch.pin_memory() if self.batch else None, self.broken, self.error)

    def share_memory(self) -> Fetched:
        """See ``Batch``."""
        if self.batch:
            self.batch.share_memory()
        return self
