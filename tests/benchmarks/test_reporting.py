"""A benchmark's file is on disk as it goes, keeps what failed, and is not written over unasked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from benchmarks.reporting import BenchmarkFile, Cell, markdown_table
from rasterwise.errors import InputError


@dataclass(frozen=True)
class Options:
    """A benchmark's flags."""

    output: Path
    repeats: int = 1


def new_file(path: Path, *, force: bool = False) -> BenchmarkFile:
    return BenchmarkFile(path, "trial", Options(path), torch.device("cpu"), force)


def test_the_file_tells_the_machine_and_the_flags(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    new_file(path)
    content = json.loads(path.read_text())
    assert content["options"] == {"output": str(path), "repeats": 1}
    assert (content["complete"], content["cells"]) == (False, [])
    machine = content["machine"]
    assert machine["torch"] == torch.__version__
    assert machine["device"] == "cpu"
    assert {
        "date",
        "commit",
        "files_differ_from_commit",
        "cpu_model",
        "load_average_1_minute",
    } <= machine.keys()


def test_a_cell_is_on_disk_before_the_next_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"

    def second() -> Cell:
        content = json.loads(path.read_text())
        assert [cell["figure"] for cell in content["cells"]] == [1]
        assert not content["complete"]
        raise KeyboardInterrupt

    file = new_file(path)
    with pytest.raises(KeyboardInterrupt):
        file.run([({"label": "first"}, lambda: {"figure": 1}), ({"label": "second"}, second)])
    content = json.loads(path.read_text())
    assert [cell["label"] for cell in content["cells"]] == ["first"]
    assert not content["complete"]


def test_a_cell_that_fails_says_so_and_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"

    def failing() -> Cell:
        raise MemoryError("no more of it")

    file = new_file(path)
    file.run([({"label": "first"}, failing), ({"label": "second"}, lambda: {"figure": 2})])
    first, second = json.loads(path.read_text())["cells"]
    assert first["error"] == "MemoryError: no more of it"
    assert second["figure"] == 2
    assert file.report(lambda cells: "", as_json=True)["failed"] == ["first"]


def test_a_file_is_replaced_only_when_forced(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text("figures of an hour's work")
    with pytest.raises(InputError, match="--force"):
        new_file(path)
    assert path.read_text() == "figures of an hour's work"
    new_file(path, force=True)
    assert json.loads(path.read_text())["benchmark"] == "trial"


def test_a_table_has_a_dash_where_there_is_no_figure() -> None:
    table = markdown_table(["model", "seconds", "count"], [["a", 1.23456, 12345], ["b", None, 0]])
    assert table.splitlines() == [
        "| model | seconds | count |",
        "|---|---:|---:|",
        "| a | 1.23 | 12,345 |",
        "| b | – | 0 |",
    ]
