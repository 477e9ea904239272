"""Rows of parquet files, read in pieces from any place; nothing is held but what their footers say."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rasterwise.data.rows import Row
from rasterwise.errors import InputError

READ_BYTES, MOST_READ_ROWS = 2 << 20, 4096
"""About how much is taken from a row group at once: it is never held whole, and each take has its cost."""
BUFFER_BYTES = 1 << 20
"""Bytes read ahead in a column."""
RUN_ROWS = 1024
"""A row group of more rows is cut into runs of about so many, which are shuffled apart; but
MOST_RUNS at most, because whoever reads one passes over those before it in the group."""
MOST_RUNS = 8


@dataclass(frozen=True)
class HoldOut:
    """One of every ``one_in`` rows, which one by a hash: the same rows in memory and streamed.

    Attributes:
        one_in: Rows of which one is set aside.
        chosen: These rows; False for the others.
    """

    one_in: int
    chosen: bool

    def mask(self, start: int, stop: int) -> np.ndarray:
        """Which of the rows from ``start`` to ``stop`` are meant: bool ``(stop - start,)``."""
        blocks = range(start // self.one_in, -(-stop // self.one_in))
        places = [zlib.crc32(block.to_bytes(8, "little")) % self.one_in for block in blocks]
        mask = np.zeros((len(blocks), self.one_in), dtype=bool)
        mask[np.arange(len(blocks)), places] = True
        first = blocks.start * self.one_in
        mask = mask.reshape(-1)[start - first : stop - first]
        return mask if self.chosen else ~mask


@dataclass(frozen=True)
class Run:
    """Consecutive rows of a row group: what shuffling moves as one.

    Attributes:
        file: Which file.
        group: Which row group of it.
        offset: The first row's place in the group.
        number: The first row's number in the split.
        rows: How many.
    """

    file: int
    group: int
    offset: int
    number: int
    rows: int


@dataclass(frozen=True)
class ParquetRows:
    """Some columns of some rows of parquet files.

    Attributes:
        files: Paths or URLs, in order.
        footers: pyarrow's metadata of each.
        features: What the columns hold.
        columns: Which of them are read.
        hold_out: Which rows; None for all.
    """

    files: tuple[str, ...]
    footers: tuple[Any, ...]
    features: Any
    columns: tuple[str, ...]
    hold_out: HoldOut | None = None

    @classmethod
    def open(cls, files: Sequence[str], features: Any = None) -> ParquetRows:
        """Read the footers.

        Args:
            files: Paths or URLs, in order.
            features: What the columns hold, where that is known already.

        Raises:
            InputError: A file is no whole parquet file, or lacks a column that the first one has.
        """
        import datasets

        with ThreadPoolExecutor(16) as pool:  # they may be far away
            footers = tuple(pool.map(lambda file: _opened(file).metadata, files))
        features = features or datasets.Features.from_arrow_schema(footers[0].schema.to_arrow_schema())
        for file, footer in zip(files, footers, strict=True):
            lacking = set(features) - set(footer.schema.to_arrow_schema().names)
            if lacking:
                raise InputError(f"{file} lacks the columns {', '.join(sorted(lacking))} that others have")
        return cls(tuple(files), footers, features, tuple(features))

    @property
    def state(self) -> list[tuple[str, int, int]]:
        """What tells one state of the files from another: name, size and time of change of each.

        A URL names its revision and is its own state.
        """
        found = []
        for name in self.files:
            path = Path(name)
            status = path.stat() if path.is_file() else None
            found.append((path.name, status.st_size, status.st_mtime_ns) if status else (name, 0, 0))
        return found

    def select_columns(self, columns: list[str]) -> ParquetRows:
        """The same rows with fewer columns."""
        return dataclasses.replace(self, columns=tuple(columns))

    def select(self, hold_out: HoldOut) -> ParquetRows:
        """Some of the rows."""
        return dataclasses.replace(self, hold_out=hold_out)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All rows of the files, cut up; rows that are not meant are among them."""
        runs, number = [], 0
        for file, footer in enumerate(self.footers):
            for group in range(footer.num_row_groups):
                rows = footer.row_group(group).num_rows
                pieces = min(MOST_RUNS, -(-rows // RUN_ROWS)) if rows else 0
                cuts = [rows * piece // pieces for piece in range(pieces)] + [rows]
                for start, stop in itertools.pairwise(cuts):
                    runs.append(Run(file, group, start, number + start, stop - start))
                number += rows
        return tuple(runs)

    @cached_property
    def lengths(self) -> np.ndarray:
        """How many rows of each run are meant: int64 ``(runs,)``."""
        return np.array([len(self._meant(run)) for run in self.runs], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def read(self, start: int = 0, stop: int | None = None, order: np.ndarray | None = None) -> Iterator[Row]:
        """Rows from one place to another, one run after the other.

        Args:
            start: The first row.
            stop: The row after the last one; by default all that there are.
            order: The runs' indices, int64 ``(runs,)``; by default as they are stored.
        """
        order = np.arange(len(self.runs)) if order is None else order
        ends = np.cumsum(self.lengths[order])
        stop = len(self) if stop is None else stop
        for place in range(int(np.searchsorted(ends, start, side="right")), len(order)):
            run, end = int(order[place]), int(ends[place])
            begin = end - int(self.lengths[run])
            if begin >= stop:
                return
            wanted = self._meant(self.runs[run])[max(0, start - begin) : stop - begin]
            if len(wanted):
                yield from self._rows(self.runs[run], wanted)

    def _meant(self, run: Run) -> np.ndarray:
        """Places in the run of the rows that are meant."""
        if self.hold_out is None:
            return np.arange(run.rows)
        return np.flatnonzero(self.hold_out.mask(run.number, run.number + run.rows))

    def _rows(self, run: Run, wanted: np.ndarray) -> Iterator[Row]:
        import pyarrow

        name, wanted = self.files[run.file], wanted + run.offset
        group = self.footers[run.file].row_group(run.group)
        size = min(MOST_READ_ROWS, max(1, READ_BYTES * group.num_rows // max(1, group.total_byte_size)))
        # Named here: a generator dropped as the program ends cannot look them up any more.
        unreadable = (pyarrow.ArrowException, OSError)
        try:
            file = _opened(name, self.footers[run.file])
            first = 0
            for batch in file.iter_batches(size, row_groups=[run.group], columns=list(self.columns)):
                low, high = np.searchsorted(wanted, (first, first + len(batch)))
                if high > low:
                    values = self._plain(batch.take(pyarrow.array(wanted[low:high] - first)))
                    for place, row in zip(wanted[low:high], values, strict=True):
                        yield Row(run.number - run.offset + int(place), row, name)
                first += len(batch)
                if first > wanted[-1]:
                    return
        except unreadable as error:
            raise InputError(
                f"row group {run.group} of {name} cannot be read ({error}); mend or remove the file"
            ) from None

    def _plain(self, batch: Any) -> list[dict[str, Any]]:
        """Rows as dictionaries, with images as their files' bytes or path and labels as indices."""
        columns = {}
        for name in self.columns:
            feature = self.features[name]
            column = batch.column(name)
            cast = getattr(feature, "cast_storage", None)
            columns[name] = (cast(column) if cast else column).to_pylist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _opened(name: str, footer: Any = None) -> Any:
    import fsspec
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        if Path(name).is_file():
            return ParquetFile(name, metadata=footer, buffer_size=BUFFER_BYTES)
        files, path = fsspec.core.url_to_fs(name)
        return ParquetFile(files.open(path, "rb"), metadata=footer, buffer_size=BUFFER_BYTES)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{name} cannot be read as parquet ({error}); mend or remove it") from None
