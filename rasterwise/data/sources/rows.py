"""Rows of a dataset as they are stored, and the interface of what they are read from."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self, TypeAlias

import numpy as np

from rasterwise.data.sources.columns import Column
from rasterwise.data.sources.state import FileState

Label: TypeAlias = bool | int | str


@dataclass(frozen=True)
class Row:
    """A row as it is stored.

    Attributes:
        index: Its index in its split as stored, before any rows are held out.
        values: What its columns hold.
        file: The file that it was read from, where one is known.
        state: Of the file, where that is the image itself.
    """

    index: int
    values: dict[str, Any]
    file: str = ""
    state: FileState | None = None


@dataclass(frozen=True)
class HoldOut:
    """One of every ``one_in`` rows, which one by a hash: the same rows in memory and streamed.

    Attributes:
        one_in: Rows of which one is held out.
        chosen: These rows; False for the others.
    """

    one_in: int
    chosen: bool

    def mask(self, start: int, stop: int) -> np.ndarray:
        """Which of the rows from ``start`` to ``stop`` are meant: bool ``(stop - start,)``."""
        blocks = range(start // self.one_in, -(-stop // self.one_in))
        positions = [zlib.crc32(block.to_bytes(8, "little")) % self.one_in for block in blocks]
        mask = np.zeros((len(blocks), self.one_in), dtype=bool)
        mask[np.arange(len(blocks)), positions] = True
        first = blocks.start * self.one_in
        mask = mask.reshape(-1)[start - first : stop - first]
        return mask if self.chosen else ~mask


class Rows(Protocol):
    """Some columns of some rows of one split of a dataset."""

    @property
    def columns(self) -> Mapping[str, Column]:
        """What the columns hold."""
        ...

    @property
    def files(self) -> Mapping[str, FileState]:
        """The files that they are read from: whole paths or addresses, as ``Row.file`` has them."""
        ...

    @property
    def state(self) -> tuple[object, ...]:
        """What tells one state of the rows from another, as cheap as can be had; shown by ``repr``."""
        ...

    def select_columns(self, names: Sequence[str]) -> Self:
        """The same rows with fewer columns."""
        ...

    def select(self, hold_out: HoldOut) -> Self:
        """Some of the rows."""
        ...

    def distinct(self, column: str) -> set[Label | None]:
        """The values of a column of integers, strings or booleans, in all rows, held out or not."""
        ...

    def sample(self, most: int) -> list[Row]:
        """A few rows, from as far apart as can be had at once."""
        ...

    def read(self) -> Iterator[Row]:
        """All rows, in order."""
        ...

    def __len__(self) -> int: ...


class Table(Protocol):
    """Rows that can be fetched by index; the members are as those of ``Rows``."""

    @property
    def columns(self) -> Mapping[str, Column]: ...

    @property
    def files(self) -> Mapping[str, FileState]: ...

    @property
    def state(self) -> tuple[object, ...]: ...

    def select_columns(self, names: Sequence[str]) -> Table: ...

    def distinct(self, column: str) -> set[Label | None]: ...

    def __getitem__(self, index: int) -> Row: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class IndexedRows:
    """Rows of a table that can be fetched by index.

    Attributes:
        table: All rows.
        hold_out: Which of them; None for all.
    """

    table: Table
    hold_out: HoldOut | None = None

    @cached_property
    def _indices(self) -> Sequence[int] | np.ndarray:
        if self.hold_out is None:
            return range(len(self.table))
        return np.flatnonzero(self.hold_out.mask(0, len(self.table)))

    @property
    def columns(self) -> Mapping[str, Column]:
        return self.table.columns

    @property
    def files(self) -> Mapping[str, FileState]:
        return self.table.files

    @property
    def state(self) -> tuple[object, ...]:
        return *self.table.state, self.hold_out

    def select_columns(self, names: Sequence[str]) -> IndexedRows:
        return IndexedRows(self.table.select_columns(names), self.hold_out)

    def select(self, hold_out: HoldOut) -> IndexedRows:
        return IndexedRows(self.table, hold_out)

    def distinct(self, column: str) -> set[Label | None]:
        return self.table.distinct(column)

    def sample(self, most: int) -> list[Row]:
        return [self[index] for index in range(0, len(self), max(1, len(self) // most))]

    def read(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Row:
        return self.table[int(self._indices[index])]
