"""Images drawn in parallel, and by several processes: the same as those drawn symbol by symbol in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main as rasterwise
from tests.conftest import Chain, Folders

TWO_PROCESSES = """
import sys
import pipeline.evaluation.classifier

pipeline.evaluation.classifier.STEPS_AT_LEAST = 20

from pipeline.cli import main

sys.exit(main(sys.argv[1:]))
"""


def report_of(capsys: pytest.CaptureFixture[str], *command: object) -> dict[str, Any]:
    capsys.readouterr()
    assert rasterwise([*map(str, command), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


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
    """Under torchrun, the main process alone writes and reports: the same files, bit for bit, and figures."""
    monkeypatch.setattr("pipeline.evaluation.classifier.STEPS_AT_LEAST", 20)
    source = "--source" if command[0] == "evaluate" else "--pipeline"
    command = [*command, f"{source}={chain.prior}"]
    outputs = [tmp_path / "one", tmp_path / "two"]
    flags = [[] if command[0] == "evaluate" else [f"--output={output}"] for output in outputs]
    alone = report_of(capsys, *command, *flags[0])
    script = tmp_path / "command.py"
    script.write_text(TWO_PROCESSES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*torchrun, "--", script, *command, *flags[1], "--json"],  # it would take --n for a flag of its own
        capture_output=True,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    together = json.loads(done.stdout)
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
