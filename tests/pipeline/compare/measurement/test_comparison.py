"""Whole comparisons, tiny: cells done once, failures reported, the same figures twice."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.compare.measurement import cell as cells_module
from pipeline.compare.measurement import comparison as comparisons
from pipeline.compare.measurement import stage as stages
from pipeline.compare.measurement.cell import FAILED, OUT_OF_MEMORY, OVER_BUDGET
from pipeline.compare.measurement.comparison import compare
from pipeline.compare.measurement.training import cell_images
from pipeline.compare.plan.families import FAMILIES
from pipeline.compare.plan.settings import Cell, Settings, Size
from pipeline.compare.report.page import publish
from rasterwise.data.dataset import ImageData
from rasterwise.data.indexed import first_of, tensor_split
from rasterwise.errors import InputError
from rasterwise.files import read_json

SETTINGS = Settings(
    budget="4steps", samples=16, sample_batch=16, naive_sites=1, test_images=20, parallel=2, device="cpu"
)
GATED = Cell("gated-pixelcnn", 4, Size(8, 1))
CODES = Cell("vqvae-prior", 4, Size(32, 1))
PALETTE = Cell("image-gpt", 4, Size(32, 1))

TIMED = ("seconds", "bytes", "per_second")
"""What the names of figures contain that a second run need not give again."""


@functools.cache
def few_images(settings: Settings, resolution: int) -> ImageData:
    """The images of a cell, few of them to train on, opened once."""
    images = cell_images(settings, resolution)
    few = first_of(images.train, 128)
    return dataclasses.replace(images, train=tensor_split(few.values, few.labels))


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes seconds, and cells of this size share one well; few images and colours suffice."""
    monkeypatch.setattr(comparisons, "in_fresh_process", lambda threads, work, *rest: work(*rest))
    monkeypatch.setattr(cells_module, "limit_memory", lambda gib, device: None)
    monkeypatch.setattr(cells_module, "cell_images", few_images)
    monkeypatch.setattr("pipeline.compare.plan.families.GREYS", 4)
    monkeypatch.setattr("pipeline.evaluation.classifier.STEPS_AT_LEAST", 10)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the trainings that are done."""
    done: list[str] = []
    train: Callable[..., Any] = stages.train

    def counted(task: Any, config: Any, run: Any, accelerator: Any) -> Any:
        done.append(run.path.parent.parent.name)
        return train(task, config, run, accelerator)

    monkeypatch.setattr(stages, "train", counted)
    return done


def result(output: Path, cell: Cell) -> dict[str, Any]:
    return read_json(output / "cells" / cell.name / "result.json")


@pytest.mark.slow
def test_every_family_is_compared_with_classes(tmp_path: Path) -> None:
    """To the last figure: mode coverage of all, and the probe of the one model whose layers can be probed."""
    sizes = {"vqvae-prior": Size(32, 1), "image-gpt": Size(32, 1)}
    cells = [Cell(family, 4, sizes.get(family, Size(8, 1))) for family in FAMILIES]
    settings = dataclasses.replace(SETTINGS, budget="2steps", parallel=0)
    assert compare("family", cells, settings, tmp_path / "out", publish)["not_done"] == {}
    figures = {cell.family: result(tmp_path / "out", cell) for cell in cells}
    assert all(sum(found["coverage"]["drawn"]) == 16 for found in figures.values())
    assert [family for family, found in figures.items() if "probe" in found] == ["image-gpt"]


def test_a_comparison_from_beginning_to_end(tmp_path: Path, trainings: list[str]) -> None:
    """All kinds of symbols; cells done are kept, and one is added."""
    report = compare("resolution", [GATED, CODES], SETTINGS, tmp_path / "out", publish)
    assert (report["cells"], report["done"], report["not_done"]) == (2, 2, {})
    assert trainings == [GATED.name, CODES.name, CODES.name]
    gated, codes = result(tmp_path / "out", GATED), result(tmp_path / "out", CODES)
    assert gated["bits_per_dim"] == pytest.approx(gated["nll_nats"] / 16 / 0.6931471805599453)
    assert (gated["symbols_an_image"], codes["symbols_an_image"]) == (16, 4)
    assert codes["bits_per_dim"] is None
    assert codes["elbo_bits_per_dim"] > codes["nll_nats"] / 16 / 0.6931471805599453
    assert gated["psnr_db"] is None
    assert codes["psnr_db"] > 0
    assert (gated["training_steps"], codes["training_steps"], codes["tokenizer_training_steps"]) == (4, 2, 2)
    assert gated["frechet_images"] == 16
    assert 1 <= gated["parallel_evaluations_an_image"] <= 16
    compare("resolution", [PALETTE], SETTINGS, tmp_path / "out", publish)
    assert trainings[3:] == [PALETTE.name]
    assert result(tmp_path / "out", PALETTE)["nats_per_palette_colour"] > 0
    listed = json.loads((tmp_path / "out" / "comparison.json").read_text())["cells"]
    assert {cell["name"] for cell in listed} == {GATED.name, CODES.name, PALETTE.name}
    changed = dataclasses.replace(SETTINGS, budget="5steps")
    with pytest.raises(InputError, match="holds a run with budget = 4steps, not 5steps"):
        compare("resolution", [GATED], changed, tmp_path / "out", publish)
    with pytest.raises(InputError, match="holds a run of 'compare resolution'"):
        compare("size", [GATED], SETTINGS, tmp_path / "out", publish)


def test_the_same_command_gives_the_same_figures(tmp_path: Path) -> None:
    """All but times and memory, by steps; of both stages and of a family with mode coverage."""
    for name in ("a", "b"):
        compare("family", [GATED, CODES], SETTINGS, tmp_path / name, publish)
    for cell in (GATED, CODES):
        first, second = result(tmp_path / "a", cell), result(tmp_path / "b", cell)
        kept = [key for key in first if not any(word in key for word in TIMED)]
        assert len(kept) > 15
        assert "coverage" in kept
        assert {key: first[key] for key in kept} == {key: second[key] for key in kept}
        folder = Path("cells", cell.name, "samples.png")
        assert (tmp_path / "a" / folder).read_bytes() == (tmp_path / "b" / folder).read_bytes()


def test_cells_that_fail_are_reported_and_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[str]
) -> None:
    """For want of memory, of budget, or by a defect: each has its row, and the others go on."""
    good = cells_module.train_cell

    def failing(cell: Cell, *rest: Any) -> Any:
        if cell == CODES:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        if cell == PALETTE:
            raise KeyError("a defect")
        return good(cell, *rest)

    monkeypatch.setattr(cells_module, "train_cell", failing)
    output = tmp_path / "out"
    report = compare("resolution", [CODES, PALETTE, GATED], SETTINGS, output, publish)
    assert report["not_done"] == {CODES.name: OUT_OF_MEMORY, PALETTE.name: FAILED}
    page = (output / "index.html").read_text()
    assert "did not fit in memory: DefaultCPUAllocator" in page
    assert "failed: KeyError" in page
    monkeypatch.setattr(cells_module, "train_cell", good)
    again = compare("resolution", [CODES, PALETTE, GATED], SETTINGS, output, publish)
    assert again["not_done"] == report["not_done"]
    assert trainings == [GATED.name]
    assert compare("resolution", [CODES], SETTINGS, output, publish, retry=True)["done"] == 2
    assert trainings == [GATED.name, CODES.name, CODES.name]


def test_a_budget_below_one_step(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, budget="10flops")
    report = compare("resolution", [GATED], settings, tmp_path / "out", publish)
    assert report["not_done"] == {GATED.name: OVER_BUDGET}
    assert "one training step costs" in result(tmp_path / "out", GATED)["reason"]


def test_a_stopped_comparison_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[str]
) -> None:
    """A cell that was asked to stop has no result; the next command ends it, and the page shows both states."""
    good = cells_module.train_cell

    def stopped(cell: Cell, *rest: Any) -> Any:
        if cell == PALETTE:
            raise stages.StoppedError
        return good(cell, *rest)

    monkeypatch.setattr(cells_module, "train_cell", stopped)
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        compare("resolution", [GATED, PALETTE], SETTINGS, output, publish)
    assert "not yet" in (output / "index.html").read_text()
    monkeypatch.setattr(cells_module, "train_cell", good)
    assert compare("resolution", [GATED, PALETTE], SETTINGS, output, publish)["done"] == 2
    assert trainings == [GATED.name, PALETTE.name]
    assert "not yet" not in (output / "index.html").read_text()


@pytest.mark.slow
def test_a_cell_whose_process_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system kills for memory without a word: the row says so."""
    monkeypatch.undo()
    monkeypatch.setattr(comparisons, "measure_cell", _killed)
    report = compare("resolution", [GATED], SETTINGS, tmp_path / "out", publish)
    assert report["not_done"] == {GATED.name: OUT_OF_MEMORY}


@pytest.mark.parametrize(("error", "status"), [(MemoryError(), OUT_OF_MEMORY), (ValueError("x"), FAILED)])
def test_a_cell_that_cannot_say_what_happened(
    error: Exception, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no memory left to write its result: the row says so, and the comparison goes on."""

    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(comparisons, "in_fresh_process", fail)
    report = compare("resolution", [GATED], SETTINGS, tmp_path / "out", publish)
    assert report["not_done"] == {GATED.name: status}


def _killed(*_: Any) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
