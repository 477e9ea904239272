"""A split read from parquet files as it is needed: shuffled in lanes, and resumed at any batch at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from rasterwise.data.parquet import ParquetRows
from rasterwise.data.rows import Reader, Row
from rasterwise.data.splits import Batch, Change, Fetched
from rasterwise.data.workers import BrokenImages, loaded
from rasterwise.errors import InputError

MOST_LANES = 32


@dataclass(frozen=True)
class Place:
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
    """An order of streamed items in which every draw's place is arithmetic.

    Each epoch puts the runs of rows in another order and cuts the whole into equal *lanes*, the draws taking
    from one lane after the other. Within a lane, rows are shuffled in windows. So a batch has items from all
    over the dataset, any draw can be found without making those before it, and who reads every n-th draw, n
    dividing the number of lanes, has lanes of its own to read: an n-th of the data.

    Args:
        lengths: Items of each run, int64.
        buffer: Items that are held to be shuffled, in all lanes together.
        seed: The order depends on it alone.

    Example:
        >>> shuffle = Shuffle(np.array([3, 4, 3]), buffer=4, seed=0)
        >>> shuffle.lanes, [shuffle.bounds(lane) for lane in range(2)], shuffle.window
        (2, [(0, 5), (5, 10)], 2)
        >>> shuffle.place(13)
        Place(epoch=1, lane=1, window=0, offset=1)
    """

    def __init__(self, lengths: np.ndarray, buffer: int, seed: int) -> None:
        self.lengths, self.seed, self.length = lengths, seed, int(lengths.sum())
        most = max(1, min(MOST_LANES, int((lengths > 0).sum()), buffer))
        self.lanes = 1 << most.bit_length() - 1  # a power of two, as the counts of processes mostly are
        self.window = max(1, buffer // self.lanes)

    def place(self, draw: int) -> Place:
        """Where a draw comes from."""
        epoch, draw = divmod(draw, self.length)
        item, lane = divmod(draw, self.lanes)
        return Place(epoch, lane, *divmod(item, self.window))

    def bounds(self, lane: int) -> tuple[int, int]:
        """The lane's first item, and the one after its last, of an epoch's."""
        size, more = divmod(self.length, self.lanes)
        start = lane * size + min(lane, more)
        return start, start + size + (lane < more)

    def order(self, epoch: int) -> np.ndarray:
        """The runs' indices in the order of an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))

    def within(self, place: Place, count: int) -> np.ndarray:
        """The order of a window's items."""
        key = [self.seed, place.epoch, place.lane, place.window]
        return np.random.default_rng(key).permutation(count)


class Windows:
    """The windows of a shuffled stream, each lane read on from where its last window ended.

    Args:
        rows: What is streamed.
        shuffle: In which order.
    """

    def __init__(self, rows: ParquetRows, shuffle: Shuffle) -> None:
        self._rows, self._shuffle = rows, shuffle
        self._open: dict[int, tuple[Place, list[Row], Iterator[Row]]] = {}

    def from_place(self, place: Place) -> list[Row]:
        """The rows of the place's window in their shuffled order, turned so that the place's comes first."""
        before, window, stream = self._open.get(place.lane, (None, [], iter(())))
        if before is None or (before.epoch, before.window) != (place.epoch, place.window):
            if before is None or (before.epoch, before.window + 1) != (place.epoch, place.window):
                start, stop = self._shuffle.bounds(place.lane)
                start += place.window * self._shuffle.window
                stream = self._rows.read(start, stop, self._shuffle.order(place.epoch))
            read = list(itertools.islice(stream, self._shuffle.window))
            window = [read[index] for index in self._shuffle.within(place, len(read))]
            self._open[place.lane] = place, window, stream
        return window[place.offset :] + window[: place.offset]


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
        self._rows, self._reader, self._fingerprint = (
            rows.select_columns(reader.kept_columns),
            reader,
            fingerprint,
        )
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
        batches = [part.batch for part in parts if part.batch is not None]
        labels = [batch.labels for batch in batches if batch.labels is not None]
        return Batch(torch.cat([batch.values for batch in batches]), torch.cat(labels) if labels else None)


class _ShuffledReads(IterableDataset):
    """One worker's part of every batch: workers are to a process what processes are to the run."""

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
        """Which worker makes a draw: the one that makes every ``world × readers``-th, whatever the batch."""
        return draw // self.world % readers

    def __iter__(self) -> Iterator[Fetched]:
        number, readers = _worker()
        windows = Windows(self.rows, self.shuffle)
        for step in itertools.count(self.start):
            draws = [draw for draw in self.draws(step) if self.owner(draw, readers) == number]
            items, broken = [], dict[int, str]()
            try:
                for draw in draws:
                    # All who read a lane hold its window: whichever of them draws, the same row takes the place.
                    window = windows.from_place(self.shuffle.place(draw))
                    item = self.reader.first_whole(window, broken)
                    if item is None:
                        raise InputError(
                            f"{len(window)} images of split {self.reader.name!r} from {window[0].file} "
                            "are broken, and no whole one is among them to take their place"
                        )
                    items.append(item)
            except InputError as error:
                yield Fetched(None, broken, str(error))
                return
            batch = self.reader.batch(items)
            if batch is not None and self.change is not None:
                batch = Batch(self.change(batch.values, draws), batch.labels)
            yield Fetched(batch, broken)


class _OrderedReads(IterableDataset):
    """One worker's batches, every n-th of the process's."""

    def __init__(self, rows: ParquetRows, reader: Reader, batch_size: int, indices: range) -> None:
        self.rows, self.reader, self.batch_size, self.indices = rows, reader, batch_size, indices

    @cached_property
    def _span(self) -> tuple[int, int]:
        return (self.indices[0], self.indices[-1] + 1) if self.indices else (0, 0)

    def __iter__(self) -> Iterator[Fetched]:
        worker, readers = _worker()
        start, stop = self._span
        items, indices, broken, taken = [], list[int](), dict[int, str](), 0
        # Rows of others are read with this one's and passed over: decoding is what costs.
        mine = (
            (number, row)
            for number, row in enumerate(self.rows.read(start, stop), start)
            if number in self.indices
        )
        for place, (number, row) in enumerate(mine):
            if place // self.batch_size % readers != worker:
                continue
            try:
                item = self.reader.first_whole([row], broken)
            except InputError as error:
                yield Fetched(None, broken, str(error))
                return
            if item is not None:
                items.append(item)
                indices.append(number)
            taken += 1
            if taken == self.batch_size:
                yield Fetched(self.reader.batch(items, indices), broken)
                items, indices, broken, taken = [], [], {}, 0
        if taken:
            yield Fetched(self.reader.batch(items, indices), broken)


def _worker() -> tuple[int, int]:
    """This worker's number, and how many there are."""
    worker = get_worker_info()
    return (worker.id, worker.num_workers) if worker else (0, 1)
