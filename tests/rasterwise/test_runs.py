"""Run folders: who may write where."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rasterwise.errors import InputError
from rasterwise.runs import RunFolder
from rasterwise.training import TrainingConfig


@dataclass(frozen=True)
class Options:
    output: Path = Path("x")
    training: TrainingConfig = field(default_factory=TrainingConfig)
    json: bool = False


def test_the_same_run_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    """What tells two runs apart is named; --json and --output do not."""
    folder = tmp_path / "run"
    RunFolder.claim(folder, "train vqvae", Options())
    (folder / "metrics.jsonl").write_text("{}")
    RunFolder.claim(folder, "train vqvae", Options(json=True))
    assert (folder / "metrics.jsonl").exists()
    other = replace(Options(), training=TrainingConfig(steps=7))
    with pytest.raises(InputError, match=r"holds a run with training\.steps = 2000, not 7"):
        RunFolder.claim(folder, "train vqvae", other)
    with pytest.raises(InputError, match="holds a run of 'train vqvae'"):
        RunFolder.claim(folder, "train prior", Options())
    RunFolder.claim(folder, "train prior", other, force=True)
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """Not even --force deletes what is no run; a file is no folder."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no run"):
        RunFolder.claim(tmp_path, "train vqvae", Options(), force=True)
    with pytest.raises(InputError, match="is a file"):
        RunFolder.claim(tmp_path / "thesis.txt", "train vqvae", Options())
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_finished_run_has_a_report(tmp_path: Path) -> None:
    """None before, the report after."""
    run = RunFolder.claim(tmp_path / "run", "train vqvae", Options())
    assert run.report is None
    run.finish({"steps": 3})
    assert RunFolder.claim(tmp_path / "run", "train vqvae", Options()).report == {"steps": 3}
