"""The commands: what they ask for, and every refusal in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main as rasterwise
from pipeline.compare.commands import family, resolution, size
from pipeline.compare.measurement.cell import FAILED, OUT_OF_MEMORY
from pipeline.compare.plan.settings import Cell, Size

MODULES: dict[str, Any] = {"resolution": resolution, "size": size, "family": family}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the commands would compare."""
    calls: list[dict[str, Any]] = []

    def compare(
        kind: str, cells: Any, settings: Any, output: Path, publish: Any, **named: Any
    ) -> dict[str, Any]:
        calls.append({"kind": kind, "cells": cells, "settings": settings, "output": output, **named})
        return {"not_done": {}}

    monkeypatch.setattr("pipeline.compare.commands.command.compare", compare)
    return calls


def test_cells_of_resolutions(asked: list[dict[str, Any]]) -> None:
    """Every model at every resolution, each at one size; the name on the papers is taken too."""
    words = ["compare", "resolution", "--models", "pixelcnn++", "vqvae-prior", "--resolutions", "8", "4"]
    assert rasterwise([*words, "--budget", "5steps", "--seed", "3"]) == 0
    (call,) = asked
    assert [cell.name for cell in call["cells"]] == [
        "pixelcnn-pp-4-32x1", "pixelcnn-pp-8-32x1", "vqvae-prior-4-128x4", "vqvae-prior-8-128x4",
    ]  # fmt: skip
    assert call["settings"].seed == 3
    assert call["command"] == "rasterwise " + " ".join([*words, "--budget", "5steps", "--seed", "3"])


def test_cells_of_sizes_and_families(asked: list[dict[str, Any]]) -> None:
    assert rasterwise(["compare", "size", "--resolution", "8", "--sizes", "8x1", "16x2"]) == 0
    assert asked[0]["cells"] == [
        Cell("gated-pixelcnn", 8, Size(8, 1)),
        Cell("gated-pixelcnn", 8, Size(16, 2)),
    ]
    assert rasterwise(["compare", "family", "--resolution", "8", "--models", "row-lstm", "image-gpt"]) == 0
    assert [cell.family for cell in asked[1]["cells"]] == ["row-lstm", "image-gpt"]


def test_a_cell_that_failed_gives_another_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is there all the same; a cell that did not fit is a finding, and no failure."""
    for found, status in ((FAILED, 1), (OUT_OF_MEMORY, 0)):
        monkeypatch.setattr(
            "pipeline.compare.commands.command.compare",
            lambda *_, found=found, **__: {"page": "x", "not_done": {"cell": found}},
        )
        assert rasterwise(["compare", "size", "--resolution", "8", "--sizes", "8x1"]) == status
        assert found in capsys.readouterr().out


@pytest.mark.parametrize("kind", MODULES)
def test_presets(kind: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """The quick one needs nothing more, and flags change it; those of real images ask for a dataset."""
    assert rasterwise(["compare", kind, "--preset", "quick", "--samples", "17"]) == 0
    assert asked[0]["settings"].samples == 17
    assert asked[0]["settings"].budget == MODULES[kind].PRESETS["quick"].settings.budget
    capsys.readouterr()
    assert rasterwise(["compare", kind, "--preset", "emoji"]) == 2
    assert capsys.readouterr().err.count("takes its images from --dataset") == 1
    assert rasterwise(["compare", kind, "--preset", "slow"]) == 2
    assert "--preset is 'slow', expected one of quick, emoji, photos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resolution", "--budget", "soon"], "budget is 'soon', expected a time"),
        (["resolution", "--models", "gan"], "model is 'gan', expected one of"),
        (["resolution", "--models", "gated-prior", "--resolutions", "5"], "cannot take resolution 5"),
        (["resolution", "--resolutions", "1"], "resolution is 1, expected 2 or more"),
        (["resolution", "--models"], "no cells were asked for"),
        (["resolution", "--size", "16"], "size is 16, but a comparison's resolutions say"),
        (["resolution", "--dataset", "./nowhere"], "does not exist"),
        (["resolution", "--inception", "nowhere.safetensors"], "do not exist"),
        (["size", "--sizes", "8by1"], "expected WIDTHxDEPTH"),
        (["size", "--sizes", "7x1", "--model", "pixelcnn", "--resolution", "8"], "width is 7"),
        (["family", "--sample-limit", "3steps"], "expected a time"),
    ],
)
def test_refusals(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, status 2, and nothing written."""
    assert rasterwise(["compare", *words, "--output", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("rasterwise: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    words = ["compare", "resolution", "--models", "pixelcnn", "--resolutions", "4", "--budget", "1steps"]
    assert rasterwise([*words, "--output", str(tmp_path)]) == 2
    assert "is not empty and holds no run" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep me"
