"""``rasterwise train prior --model any-order``, and drawing in steps with what it trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.cli import main as rasterwise
from pipeline.image_pipeline import ImagePipeline
from tests.autoregressive_suite import randomized
from tests.conftest import Chain

TINY = ["--depth=2", "--width=16", "--heads=2", "--steps=6", "--batch-size=32", "--evaluate-every=6"]


def report_of(capsys: pytest.CaptureFixture[str], *command: object) -> dict[str, Any]:
    capsys.readouterr()
    assert rasterwise([*map(str, command), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    capsys.readouterr()
    assert rasterwise([*map(str, command)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(scope="module")
def run(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior for several codes a step, trained by the command."""
    output = tmp_path_factory.mktemp("any-order") / "run"
    train = ["train", "prior", "--model=any-order", f"--codes={chain.codes}", f"--output={output}"]
    assert rasterwise([*train, *TINY, "--final-random-share=1"]) == 0
    return output


@pytest.fixture(scope="module")
def drawing(run: Path) -> Path:
    """The trained pipeline with weights so large that every symbol counts for the next ones."""
    pipeline = ImagePipeline.from_pretrained(run)
    pipeline.model = randomized(pipeline.model, 0.5).float()
    return pipeline.save_pretrained(run.parent / "drawing")


def test_trained_by_the_command_and_drawn_in_steps(
    run: Path, drawing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is a pipeline; ``sample`` and Python draw the same image in the same steps, and others in others."""
    assert report_of(capsys, "train", "prior", "--resume", run)["test"]["nll_nats"] > 0
    sample = ["sample", "--pipeline", drawing, "--n", 4, "--label", 3, "--output"]
    drawn = {}
    for steps in (0, 1, 4, 16):
        report = report_of(capsys, *sample, tmp_path / f"{steps}", "--steps", steps)
        assert report.get("steps", 0) == steps
        drawn[steps] = [path.read_bytes() for path in sorted((tmp_path / f"{steps}").iterdir())]
    assert len({tuple(files) for files in drawn.values()}) == 4
    pipeline = ImagePipeline.from_pretrained(drawing)
    images = pipeline.sample(4, 3, seed=0, steps=4, output="tensor")
    assert torch.equal(images, pipeline.sample(4, 3, seed=0, steps=4, batch_size=3, output="tensor"))
    in_steps = ImagePipeline(pipeline.tokenizer, pipeline.model.in_steps(4))
    assert torch.equal(images, in_steps.sample(4, 3, seed=0, output="tensor"))
    assert not torch.equal(images, pipeline.sample(4, 3, seed=0, output="tensor"))


def test_evaluated_in_steps(drawing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nats are those of the steps."""
    evaluate = ["evaluate", "--source", drawing, "--samples", 0, "--distance-images", 0]
    nats = [report_of(capsys, *evaluate, "--steps", steps)["nll_nats"] for steps in (0, 4, 1)]
    assert len({round(one, 6) for one in nats}) == 3


def test_what_does_not_fit_is_refused(
    chain: Chain, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, and nothing is written."""
    output = tmp_path / "out.png"
    sample = ["sample", "--n", 2, "--output", output, "--pipeline"]
    assert "trained to draw one symbol a step" in refused(capsys, *sample, chain.prior, "--steps", 4)
    assert "steps is 17, expected 1 to 16" in refused(capsys, *sample, run, "--steps", 17)
    assert "steps is -1, expected 0 or more" in refused(capsys, *sample, run, "--steps", -1)
    assert "fixed point is of raster order" in refused(capsys, *sample, run, "--steps", 4, "--parallel")
    assert "a tokenizer alone" in refused(capsys, "evaluate", "--source", chain.vqvae, "--steps", 4)
    train = [
        "train",
        "prior",
        "--model",
        "any-order",
        "--codes",
        chain.codes,
        "--output",
        tmp_path / "run",
        *TINY,
    ]
    assert "anneal_from is 0.9, expected at most anneal_to, 0.75" in refused(
        capsys, *train, "--anneal-from", 0.9
    )
    assert "expected one of transformer, hierarchical, any-order, dalle" in refused(
        capsys, "train", "prior", "--model", "random-order"
    )
    assert list(tmp_path.iterdir()) == []
