"""A split that is read from parquet files as it is needed: shuffled in lanes, and resumed at any batch at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from rasterwise.data.reading import Reader
from rasterwise.data.sources.parquet import ParquetRows
from rasterwise.data.sources.rows import Row
from rasterwise.data.splits import Batch, Change, Fetched, joined
from rasterwise.data.workers import BrokenImages, loaded
from rasterwise.errors import InputError

MOST_LANES = 32


@dataclass(frozen=True)
class Position:
    """Where in a shuffled stream a draw comes from.

    Attributes:
        epoch: How many times every item was drawn before.
        lane: Which lane.
        window: Which window of the lane.
        offset: Which item of the shuffled window.
    """

    epoch: int
    lane: int
    window: int
    offset: int


class Shuffle:
    """A shuffled order of streamed items. The position of a draw is computed from its index alone.

    Each epoch puts the runs of rows in another order and cuts the whole into equal *lanes*. The draws take one item
    from each lane in turn. Within a lane, rows are shuffled in windows. A batch therefore has items from all over the
    dataset, and any draw can be found without the ones before it. A process that makes every n-th draw, where n
    divides the number of lanes, reads an n-th of the lanes.

    Args:
        lengths: Items of each run, int64.
        buffer: Items that are held to be shuffled, in all lanes together.
        seed: The order depends on it alone.

    Example:
        >>> shuffle = Shuffle(np.array([3, 4, 3]), buffer=4, seed=0)
        >>> shuffle.lanes, [shuffle.bounds(lane) for lane in range(2)], shuffle.window
        (2, [(0, 5), (5, 10)], 2)
        >>> shuffle.position(13)
        Position(epoch=1, lane=1, window=0, offset=1)
    """

    def __init__(self, lengths: np.ndarray, buffer: int, seed: int) -> None:
        self.lengths, self.seed, self.length = lengths, seed, int(lengths.sum())
        most = max(1, min(MOST_LANES, int((lengths > 0).sum()), buffer))
        self.lanes = 1 << most.bit_length() - 1  # a power of two, as the counts of processes mostly are
        self.window = max(1, buffer // self.lanes)

    def position(self, draw: int) -> Position:
        """Where a draw comes from."""
        epoch, draw = divmod(draw, self.length)
        item, lane = divmod(draw, self.lanes)
        return Position(epoch, lane, *divmod(item, self.window))

    def bounds(self, lane: int) -> tuple[int, int]:
        """The first item of a lane in an epoch, and the one after its last."""
        size, more = divmod(self.length, self.lanes)
        start = lane * size + min(lane, more)
        return start, start + size + (lane < more)

    def order(self, epoch: int) -> np.ndarray:
        """The runs' indices in the order of an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))

    def within(self, position: Position, count: int) -> np.ndarray:
        """The order of a window's items."""
        key = [self.seed, position.epoch, position.lane, position.window]
        return np.random.default_rng(key).permutation(count)


class Windows:
    """The windows of a shuffled stream. A lane is read on from where its last window ended.

    Args:
        rows: What is streamed.
        shuffle: In which order.
    """

    def __init__(self, rows: ParquetRows, shuffle: Shuffle) -> None:
        self._rows, self._shuffle = rows, shuffle
        self._open: dict[int, tuple[Position, list[Row], Iterator[Row]]] = {}

    def starting_at(self, position: Position) -> list[Row]:
        """The shuffled rows of the position's window, rotated so that the row at the position comes first."""
        before, window, stream = self._open.get(position.lane, (None, [], iter(())))
        if before is None or (before.epoch, before.window) != (position.epoch, position.window):
            if before is None or (before.epoch, before.window + 1) != (position.epoch, position.window):
                start, stop = self._shuffle.bounds(position.lane)
                start += position.window * self._shuffle.window
                stream = self._rows.read(start, stop, self._shuffle.order(position.epoch))
            read = list(itertools.islice(stream, self._shuffle.window))
            window = [read[index] for index in self._shuffle.within(position, len(read))]
            self._open[position.lane] = position, window, stream
        return window[position.offset :] + window[: position.offset]


class StreamedSplit:
    """A split read from parquet files as it is needed.

    Args:
        rows: The rows.
        reader: What makes images of them.
        fingerprint: See ``Split``.
        workers: Processes that read ahead (0: read in this process).
        buffer: Rows that are held to be shuffled, over all processes and workers together.
    """

    def __init__(
        self, rows: ParquetRows, reader: Reader, fingerprint: str, workers: int, buffer: int
    ) -> None:
        self._rows, self._reader, self._fingerprint = rows, reader, fingerprint
        self._workers, self._buffer = workers, buffer
        self._length, self._broken = len(rows), BrokenImages()
        if not self._length:
            raise InputError(f"split {reader.name!r} is empty, expected images")

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def length(self) -> int:
        return self._length

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
        shuffle = Shuffle(self._rows.lengths, self._buffer, seed)
        reads = _ShuffledReads(self._rows, self._reader, shuffle, batch_size, start, rank, world, change)
        parts, readers = loaded(reads, None, self._workers), max(1, self._workers)
        for step in itertools.count(start):
            batch = self._joined([next(parts) for _ in range(readers)])
            owners = [reads.owner(draw, readers) for draw in reads.draws(step)]
            yield batch if readers == 1 else batch[torch.tensor(owners).argsort(stable=True).argsort()]

    def ordered(
        self, batch_size: int, *, rank: int = 0, world: int = 1, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        stop = self._length if stop is None else stop
        reads = _OrderedReads(self._rows, self._reader, batch_size, range(start, stop)[rank::world])
        for fetched in loaded(reads, None, self._workers):
            self._broken.note(fetched)
            if fetched.batch is not None:
                yield fetched.batch

    def _joined(self, parts: list[Fetched]) -> Batch:
        for part in parts:
            self._broken.note(part)
        return joined([part.batch for part in parts if part.batch is not None])


class _ShuffledReads(IterableDataset):
    """One worker's part of every batch. The workers of a process share its draws as processes share the run's."""

    def __init__(
        self,
        rows: ParquetRows,
        reader: Reader,
        shuffle: Shuffle,
        batch_size: int,
        start: int,
        rank: int,
        world: int,
        change: Change | None,
    ) -> None:
        self.rows, self.reader, self.shuffle, self.change = rows, reader, shuffle, change
        self.batch_size, self.start, self.rank, self.world = batch_size, start, rank, world

    def draws(self, step: int) -> range:
        """This process's draws of a batch."""
        return range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world)

    def owner(self, draw: int, readers: int) -> int:
        """Which worker makes a draw: each makes every ``world × readers``-th, whatever the batch size."""
        return draw // self.world % readers

    def __iter__(self) -> Iterator[Fetched]:
        worker, readers = _worker()
        windows = Windows(self.rows, self.shuffle)
        for step in itertools.count(self.start):
            draws = [draw for draw in self.draws(step) if self.owner(draw, readers) == worker]
            items, broken = [], dict[int, str]()
            try:
                for draw in draws:
                    # Every reader of a lane holds the same window, so that the same row replaces a broken one.
                    window = windows.starting_at(self.shuffle.position(draw))
                    item = self.reader.first_whole(window, broken)
                    if item is None:
                        raise InputError(
                            f"{len(window)} images of split {self.reader.name!r} from {window[0].file} "
                            "are broken, and no whole one is among them to replace one"
                        )
                    epoch = draw // self.shuffle.length
                    items.append(item.with_one_caption(self.shuffle.seed, epoch))
            except InputError as error:
                yield Fetched(None, broken, str(error))
                return
            batch = self.reader.batch(items)
            if batch is not None and self.change is not None:
                batch = replace(batch, values=self.change(batch.values, draws))
            yield Fetched(batch, broken)


class _OrderedReads(IterableDataset):
    """One worker's batches: every n-th of the process's batches."""

    def __init__(self, rows: ParquetRows, reader: Reader, batch_size: int, indices: range) -> None:
        self.rows, self.reader, self.batch_size, self.indices = rows, reader, batch_size, indices

    @cached_property
    def _span(self) -> tuple[int, int]:
        return (self.indices[0], self.indices[-1] + 1) if self.indices else (0, 0)

    def __iter__(self) -> Iterator[Fetched]:
        worker, readers = _worker()
        start, stop = self._span
        items, indices, broken, taken = [], list[int](), dict[int, str](), 0
        # The rows of other workers are read too and passed over: what costs is decoding.
        mine = (
            (index, row)
            for index, row in enumerate(self.rows.read(start, stop), start)
            if index in self.indices
        )
        for count, (index, row) in enumerate(mine):
            if count // self.batch_size % readers != worker:
                continue
            try:
                item = self.reader.first_whole([row], broken)
            except InputError as error:
                yield Fetched(None, broken, str(error))
                return
            if item is not None:
                items.append(item)
                indices.append(index)
            taken += 1
            if taken == self.batch_size:
                yield Fetched(self.reader.batch(items, indices), broken)
                items, indices, broken, taken = [], [], {}, 0
        if taken:
            yield Fetched(self.reader.batch(items, indices), broken)


def _worker() -> tuple[int, int]:
    """The index of this worker, and how many there are."""
    worker = get_worker_info()
    return (worker.id, worker.num_workers) if worker else (0, 1)
