"""Images drawn in parallel, and by several processes: the same as those drawn symbol by symbol in one process."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main as rasterwise
from pipeline.evaluation import classifier
from tests.conftest import Chain, Folders
from tests.forked import fork_two


def report_of(capsys: pytest.CaptureFixture[str], *command: object) -> dict[str, Any]:
    capsys.readouterr()
    assert rasterwise([*map(str, command), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def with_a_quick_classifier(words: list[str]) -> int:
    """The command, in which a classifier is fitted in a few steps."""
    classifier.STEPS_AT_LEAST = 20
    return rasterwise(words)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_sample_in_parallel(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same file, and a report of how many evaluations it took."""
    sample = ["sample", "--pipeline", chain.prior, "--n", 10, "--batch-size", 4, "--output"]
    assert "evaluations" not in report_of(capsys, *sample, tmp_path / "sequential.png")
    report = report_of(capsys, *sample, tmp_path / "parallel.png", "--parallel")
    assert (tmp_path / "parallel.png").read_bytes() == (tmp_path / "sequential.png").read_bytes()
    evaluations = report["evaluations"]
    assert 1 <= evaluations["mean"] <= evaluations["most"] <= evaluations["sequential"] == 16
    assert evaluations["positions"] == 16 * evaluations["mean"]
    windowed = report_of(capsys, *sample, tmp_path / "windowed.png", "--parallel", "--window", 5)[
        "evaluations"
    ]
    assert (tmp_path / "windowed.png").read_bytes() == (tmp_path / "sequential.png").read_bytes()
    assert 16 <= windowed["positions"] <= 5 * windowed["mean"]


def test_sample_and_evaluate_in_bf16(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the processor has it; elsewhere one line, before anything is written."""
    sample = ["sample", "--pipeline", chain.prior, "--n", 2, "--output", tmp_path / "out", "--precision=bf16"]
    monkeypatch.setattr("rasterwise.models.autoregressive.has_bf16", lambda device: False)
    assert rasterwise([*map(str, sample)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rasterwise: bf16 was asked for on a device without it (CPU")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("rasterwise.models.autoregressive.has_bf16", lambda device: True)
    assert report_of(capsys, *sample)["images"] == 2
    assert len(files_of(tmp_path / "out")) == 2
    evaluate = ["evaluate", "--source", chain.prior, "--samples", 0, "--distance-images", 0]
    exact, rounded = (
        report_of(capsys, *evaluate, "--precision", precision)["nll_nats"] for precision in ("fp32", "bf16")
    )
    assert 0 < abs(exact - rounded) < 0.5


def test_complete_in_parallel(
    chain: Chain, folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same file."""
    images = sorted(folders.images("mine", 2).iterdir())
    complete = ["complete", "--pipeline", chain.prior, "--images", *images, "--n", 2, "--output"]
    report_of(capsys, *complete, tmp_path / "sequential.png")
    report_of(capsys, *complete, tmp_path / "parallel.png", "--parallel")
    assert (tmp_path / "parallel.png").read_bytes() == (tmp_path / "sequential.png").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["sample", "--n=5", "--batch-size=2", "--label", "7", "1"],
        ["sample", "--n=5", "--batch-size=2", "--parallel", "--guidance=1.5"],
        ["evaluate", "--samples=30", "--distance-images=20"],
    ],
    ids=" ".join,
)
def test_two_processes_draw_what_one_does(
    command: list[str],
    chain: Chain,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The main process alone writes and reports: the same files, bit for bit, and figures."""
    monkeypatch.setattr(classifier, "STEPS_AT_LEAST", 20)
    source = "--source" if command[0] == "evaluate" else "--pipeline"
    command = [*command, f"{source}={chain.prior}"]
    outputs = [tmp_path / "one", tmp_path / "two"]
    flags = [[] if command[0] == "evaluate" else [f"--output={output}"] for output in outputs]
    alone = report_of(capsys, *command, *flags[0])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    first, second = fork_two(functools.partial(with_a_quick_classifier, [*command, *flags[1], "--json"]))
    assert (first.status, second.status) == (0, 0), first.err[-2000:] + second.err[-2000:]
    assert not second.out
    together = json.loads(first.out)
    assert together.pop("output", None) == alone.pop("output", None) or command[0] == "sample"
    if command[0] == "sample":
        assert together == alone
        assert files_of(outputs[1]) == files_of(outputs[0])
    else:
        assert together["conditional_accuracy"] == alone["conditional_accuracy"]
        assert together["nats_per_code"] == pytest.approx(alone["nats_per_code"], rel=1e-9)
        distances = alone["reconstruction"]["distances"]
        assert together["reconstruction"]["distances"].pop("network") == distances.pop("network")
        assert together["reconstruction"]["distances"] == pytest.approx(distances, rel=1e-6)


@pytest.mark.slow
def test_the_line_of_the_readme_under_torchrun(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torchrun itself starts the command: its flags reach it, the processes meet, and its status comes back."""
    readme = Path(__file__).parents[3] / "README.md"
    (line,) = re.findall(r"^torchrun (.* sample .*)$", readme.read_text(encoding="utf-8"), re.MULTILINE)
    words = line.replace("runs/prior", str(chain.prior)).replace("--n 64", "--n 3").split()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, *words, "--output", tmp_path / "two", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-9000:]
    report_of(capsys, "sample", "--pipeline", chain.prior, "--n", 3, "--output", tmp_path / "one")
    assert json.loads(done.stdout)["output"] == str(tmp_path / "two")
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
