"""Tables of Hugging Face's ``datasets``, and parquet files copied to one, so that rows can be fetched by index."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rasterwise.data.sources.columns import Column, column_of
from rasterwise.data.sources.parquet import ParquetRows
from rasterwise.data.sources.rows import IndexedRows, Label, Row, Rows
from rasterwise.data.sources.state import FileState
from rasterwise.files import new_file

COPIED_AT_ONCE = 256
"""Rows; their images are held."""

_log = logging.getLogger(__name__)


class DatasetTable:
    """A table of ``datasets``, whose images stay as they are stored, so that we decode them and name a broken one.

    Args:
        dataset: A ``datasets.Dataset``.
        state: What tells one state of it from another; by default its fingerprint.
        files: The files that it is from.
        columns: What its columns hold; by default what its features say.
        ends: The first row after each file's; by default the rows' files are not known.
    """

    def __init__(
        self,
        dataset: Any,
        state: tuple[object, ...] = (),
        files: Mapping[str, FileState] | None = None,
        columns: Mapping[str, Column] | None = None,
        ends: Sequence[int] = (),
    ) -> None:
        self.state: tuple[object, ...] = state or (dataset._fingerprint,)
        self.files = files or {}
        self.columns = columns or {name: column_of(feature) for name, feature in dataset.features.items()}
        self._data, self._ends = dataset.with_format("arrow"), ends

    def select_columns(self, names: Sequence[str]) -> DatasetTable:
        columns = {name: self.columns[name] for name in names}
        return DatasetTable(
            self._data.select_columns(list(names)), self.state, self.files, columns, self._ends
        )

    def distinct(self, column: str) -> set[Label | None]:
        return set(self._data.unique(column))

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Row:
        row = self._data[index]
        values = {name: column.values(row.column(name))[0] for name, column in self.columns.items()}
        file = list(self.files)[bisect.bisect_right(self._ends, index)] if self._ends else ""
        return Row(index, values, file)


def indexed(rows: Rows) -> IndexedRows:
    """Rows such that any can be fetched at once: those of local parquet files from a copy in the cache of ``datasets``.

    A row of a parquet file can be had only with the thousands that are packed with it. A copy is never taken for one
    of another state of the files: its name stands for their sizes, the places on the disk where they lie, and both
    the times that a file has, of which nobody can set back the second. The copies of earlier states are deleted.
    """
    import datasets
    from filelock import FileLock

    if isinstance(rows, IndexedRows):
        return rows
    assert isinstance(rows, ParquetRows), "there are no others"
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "rasterwise"
    folder = cache / _digest(sorted(rows.files), sorted(rows.columns))
    path = folder / f"{_digest(*map(_marks, rows.files))}.arrow"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not path.exists():
            for before in folder.glob("*.arrow"):
                before.unlink()
            _log.info("copying parquet files to %s, so that their rows can be read in any order", path)
            with new_file(path) as pending:
                _copy(dataclasses.replace(rows, hold_out=None), pending)
    copied = datasets.Dataset.from_file(str(path))
    ends = list(itertools.accumulate(footer.num_rows for footer in rows.footers))
    return IndexedRows(DatasetTable(copied, rows.state[:1], rows.files, rows.columns, ends), rows.hold_out)


def _copy(rows: ParquetRows, path: Path) -> None:
    import pyarrow

    image = pyarrow.struct([("bytes", pyarrow.large_binary()), ("path", pyarrow.string())])
    stored = rows.footers[0].schema.to_arrow_schema()
    fields = []
    for name, column in rows.columns.items():
        kind = stored.field(name).type
        plain = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        fields.append((name, image if column.kind in ("images", "bytes") else plain))
    schema, all_rows = pyarrow.schema(fields), rows.read()
    with pyarrow.ipc.new_stream(str(path), schema) as writer:
        while some := [row.values for row in itertools.islice(all_rows, COPIED_AT_ONCE)]:
            writer.write_batch(pyarrow.RecordBatch.from_pylist(some, schema))


def _marks(name: str) -> tuple[int, ...]:
    status = Path(name).stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
