"""Parquet files copied to a table: the rows that are there now, whatever was copied before."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from rasterwise.data.sources.parquet import ParquetRows
from rasterwise.data.sources.rows import HoldOut, IndexedRows
from rasterwise.data.sources.tables import indexed
from tests.conftest import numbered_png


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "rasterwise"


def save(path: Path, numbers: range) -> ParquetRows:
    """A parquet file whose size depends on the count of the numbers alone."""
    columns = {"image": [numbered_png(number).ljust(100) for number in numbers], "label": list(numbers)}
    pyarrow.parquet.write_table(
        pyarrow.table(columns), path, row_group_size=3, compression="none", write_statistics=False
    )
    return ParquetRows.open([str(path)])


def labels(rows: IndexedRows) -> list[object]:
    return [row.values["label"] for row in rows.read()]


def test_a_copy_holds_the_rows(tmp_path: Path) -> None:
    """As they are read one after the other, with their files and indices, held out or not."""
    save(tmp_path / "a.parquet", range(7))
    save(tmp_path / "b.parquet", range(7, 12))
    rows = ParquetRows.open([str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")])
    for part in (rows, rows.select(HoldOut(4, True)), rows.select(HoldOut(4, False))):
        assert list(indexed(part).read()) == list(part.read())
        assert [indexed(part)[index] for index in (2, 0, 1)] == [
            list(part.read())[index] for index in (2, 0, 1)
        ]


def test_a_changed_file_is_copied_anew(tmp_path: Path, cache: Path) -> None:
    """Also where it keeps its name, size and time of writing; the copy of the earlier state is deleted."""
    path = tmp_path / "x.parquet"
    assert labels(indexed(save(path, range(5)))) == [0, 1, 2, 3, 4]
    assert labels(indexed(save(path, range(5)))) == [0, 1, 2, 3, 4]
    before = path.stat()
    save(path, range(5, 10))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert labels(indexed(ParquetRows.open([str(path)]))) == [5, 6, 7, 8, 9]
    assert len(list(cache.rglob("*.arrow"))) == 1


def test_files_of_one_name_have_copies_of_their_own(tmp_path: Path) -> None:
    """In whatever folders they lie."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    first, second = (
        save(tmp_path / name / "x.parquet", numbers)
        for name, numbers in (("one", range(5)), ("two", range(5, 10)))
    )
    assert labels(indexed(first)) + labels(indexed(second)) == list(range(10))
    assert labels(indexed(first)) == list(range(5))
