"""Rows of parquet files, read in pieces from any position; nothing is held but what their footers say."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rasterwise.data.sources.columns import Column, column_of, columns_of_schema, refuse_difference
from rasterwise.data.sources.rows import HoldOut, Label, Row
from rasterwise.data.sources.state import FileState
from rasterwise.errors import InputError

READ_BYTES, MOST_READ_ROWS = 2 << 20, 4096
"""About how much is taken from a row group at once: it is never held whole, and each take has its cost."""
BUFFER_BYTES = 1 << 20
"""Bytes read ahead in a column."""
RUN_ROWS = 1024
"""A row group of more rows is cut into runs of about so many, which are shuffled apart; but
MOST_RUNS at most, because whoever reads one passes over those before it in the group."""
MOST_RUNS = 8
SAMPLED_BYTES, SAMPLED_GROUPS = 64 << 20, 16
"""Files of so many bytes are read once as a whole for a sample; of larger ones, the beginning of so many groups."""


@dataclass(frozen=True)
class Run:
    """Consecutive rows of a row group: what shuffling moves as one.

    Attributes:
        file: Which file.
        group: Which row group of it.
        offset: The first row's index in the group.
        number: The first row's index in the split.
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
        paths: Paths or URLs, in order.
        footers: pyarrow's metadata of each.
        states: Of the files, when their footers were read.
        columns: What the columns hold that are read.
        hold_out: Which rows; None for all.
        declared: The columns are those that the dataset declares, not those that its files say themselves.
    """

    paths: tuple[str, ...]
    footers: tuple[Any, ...]
    states: tuple[FileState, ...]
    columns: Mapping[str, Column]
    hold_out: HoldOut | None = None
    declared: bool = False

    @classmethod
    def open(cls, paths: Sequence[str], features: Any = None) -> ParquetRows:
        """Read the footers.

        Args:
            paths: Paths or URLs, in order.
            features: What the columns hold, where ``datasets`` knows that already.

        Raises:
            InputError: A file is no whole parquet file.
        """
        states = tuple(map(_state_of, paths))
        with ThreadPoolExecutor(16) as pool:  # they may be far away
            footers = tuple(pool.map(lambda path: _opened(path).metadata, paths))
        if features is None:
            return cls(tuple(paths), footers, states, _columns_of(paths[0], footers[0]))
        columns = {name: column_of(feature) for name, feature in features.items()}
        return cls(tuple(paths), footers, states, columns, declared=True)

    @property
    def files(self) -> Mapping[str, FileState]:
        """The files by path, with their size and time of change; a URL names its revision and is its own state."""
        return dict(zip(self.paths, self.states, strict=True))

    @property
    def state(self) -> tuple[object, ...]:
        """Name, size and time of change of each file, where a URL stands for itself; which rows are held out."""
        found = [
            (Path(name).name if state.size else name, state.size, state.modified_ns)
            for name, state in self.files.items()
        ]
        return found, self.hold_out

    def select_columns(self, names: Sequence[str]) -> ParquetRows:
        """The same rows with fewer columns; InputError where they are not the same in all files."""
        for path, footer in zip(self.paths, self.footers, strict=True):
            found = _columns_of(path, footer)
            for name in names:
                if name not in found:
                    raise InputError(f"{path} has no column {name!r}, which {self.paths[0]} has")
                if not self.declared:
                    refuse_difference(name, found[name], self.columns[name], path, self.paths[0])
        return dataclasses.replace(self, columns={name: self.columns[name] for name in names})

    def select(self, hold_out: HoldOut) -> ParquetRows:
        return dataclasses.replace(self, hold_out=hold_out)

    def distinct(self, column: str) -> set[Label | None]:
        import pyarrow

        found: set[Label | None] = set()
        for path, footer in zip(self.paths, self.footers, strict=True):
            try:
                for batch in _opened(path, footer).iter_batches(MOST_READ_ROWS, columns=[column]):
                    found.update(batch.column(0).unique().to_pylist())
            except (pyarrow.ArrowException, OSError) as error:
                raise InputError(
                    f"column {column!r} of {path} cannot be read ({error}); mend or remove it"
                ) from None
        return found

    def sample(self, most: int) -> list[Row]:
        """Rows from all over where that takes little reading, else the first ones of a few row groups."""
        if sum(self._footer_of(group).total_byte_size for group in self.groups) <= SAMPLED_BYTES:
            step = max(1, len(self) // most)
            return list(itertools.islice(self.read(), 0, None, step))
        count = SAMPLED_GROUPS if Path(self.paths[0]).is_file() else 1
        chosen = self.groups[:: max(1, len(self.groups) // count)][:count]
        parts = (self._rows(group, self._meant(group)[: most // count]) for group in chosen)
        return list(itertools.chain.from_iterable(parts))

    @cached_property
    def groups(self) -> tuple[Run, ...]:
        """The row groups of the files that have any rows; rows that are not meant are among them."""
        groups, number = [], 0
        for file, footer in enumerate(self.footers):
            for group in range(footer.num_row_groups):
                rows = footer.row_group(group).num_rows
                groups += [Run(file, group, 0, number, rows)] if rows else []
                number += rows
        return tuple(groups)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The row groups, cut up."""
        runs = []
        for group in self.groups:
            pieces = min(MOST_RUNS, -(-group.rows // RUN_ROWS))
            cuts = [group.rows * piece // pieces for piece in range(pieces + 1)]
            runs += [
                dataclasses.replace(group, offset=start, number=group.number + start, rows=stop - start)
                for start, stop in itertools.pairwise(cuts)
            ]
        return tuple(runs)

    @cached_property
    def lengths(self) -> np.ndarray:
        """How many rows of each run are meant: int64 ``(runs,)``."""
        return self._lengths(self.runs)

    @cached_property
    def _group_lengths(self) -> np.ndarray:
        return self._lengths(self.groups)

    def _lengths(self, runs: Sequence[Run]) -> np.ndarray:
        return np.array([len(self._meant(run)) for run in runs], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._group_lengths.sum())

    def read(self, start: int = 0, stop: int | None = None, order: np.ndarray | None = None) -> Iterator[Row]:
        """Rows from one position to another, one run after the other.

        Args:
            start: The first row.
            stop: The row after the last one; by default all that there are.
            order: The runs' indices, int64 ``(runs,)``; by default as they are stored, whole row groups at once.
        """
        runs = self.groups if order is None else tuple(self.runs[index] for index in order)
        ends = np.cumsum(self._group_lengths if order is None else self.lengths[order])
        stop = len(self) if stop is None else stop
        for index in range(int(np.searchsorted(ends, start, side="right")), len(runs)):
            meant = self._meant(runs[index])
            begin = int(ends[index]) - len(meant)
            if begin >= stop:
                return
            wanted = meant[max(0, start - begin) : stop - begin]
            if len(wanted):
                yield from self._rows(runs[index], wanted)

    def _meant(self, run: Run) -> np.ndarray:
        """Indices in the run of the rows that are meant."""
        if self.hold_out is None:
            return np.arange(run.rows)
        return np.flatnonzero(self.hold_out.mask(run.number, run.number + run.rows))

    def _footer_of(self, run: Run) -> Any:
        return self.footers[run.file].row_group(run.group)

    def _rows(self, run: Run, wanted: np.ndarray) -> Iterator[Row]:
        import pyarrow

        name, wanted = self.paths[run.file], wanted + run.offset
        group = self._footer_of(run)
        size = min(MOST_READ_ROWS, max(1, READ_BYTES * group.num_rows // max(1, group.total_byte_size)))
        # Named here: a generator dropped as the program ends cannot look them up any more.
        unreadable = (pyarrow.ArrowException, OSError)
        try:
            file = _opened(name, self.footers[run.file])
            if Path(name).is_file():
                self.states[run.file].refuse_change(name, Path(name).stat())
            first = 0
            for batch in file.iter_batches(size, row_groups=[run.group], columns=list(self.columns)):
                low, high = np.searchsorted(wanted, (first, first + len(batch)))
                if high > low:
                    values = self._plain(batch.take(pyarrow.array(wanted[low:high] - first)))
                    for index, row in zip(wanted[low:high], values, strict=True):
                        yield Row(run.number - run.offset + int(index), row, name)
                first += len(batch)
                if first > wanted[-1]:
                    return
        except unreadable as error:
            raise InputError(
                f"row group {run.group} of {name} cannot be read ({error}); mend or remove the file"
            ) from None

    def _plain(self, batch: Any) -> list[dict[str, Any]]:
        """Rows as dictionaries, with images as their files' bytes and path."""
        columns = {name: column.values(batch.column(name)) for name, column in self.columns.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _state_of(name: str) -> FileState:
    status = Path(name).stat() if Path(name).is_file() else None
    return FileState(status.st_size, status.st_mtime_ns) if status else FileState(0, 0)


def _columns_of(path: str, footer: Any) -> dict[str, Column]:
    try:
        return columns_of_schema(footer.schema.to_arrow_schema())
    except ValueError as error:
        raise InputError(f"{path} cannot be read as a dataset ({error}); write it anew") from None


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
