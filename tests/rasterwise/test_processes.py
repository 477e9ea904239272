"""Several processes change the speed of a training, not its mathematics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rasterwise.files import load_tensors
from tests.processes import STAGES, STEPS


def losses(run: Path) -> dict[str, list[float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, STEPS + 1))
    return {name: [line[name] for line in train] for name in train[0] if name not in ("step", "split")}


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_do_what_one_does(accumulate: int, tmp_path: Path) -> None:
    """At the same global batch: the losses of 50 steps to 1e-5, and the same weights and codebooks on both."""
    one = [sys.executable, "-m", "tests.processes", str(tmp_path / "one"), "1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = [*torchrun, "-m", "tests.processes", str(tmp_path / "two"), str(accumulate)]
    for command in (one, two):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    for stage in STAGES:
        alone, shared = losses(tmp_path / "one" / stage), losses(tmp_path / "two" / stage)
        assert alone.keys() == shared.keys()
        for name in alone.keys() - {"psnr_db"}:  # the mean of two logarithms is not that of the mean
            assert shared[name] == pytest.approx(alone[name], rel=1e-5, abs=1e-5), (stage, name)
        first, second = (
            load_tensors(tmp_path / "two" / stage / f"process-{rank}.safetensors") for rank in (0, 1)
        )
        for name, tensor in load_tensors(tmp_path / "one" / stage / "process-0.safetensors").items():
            assert torch.equal(first[name], second[name]), (stage, name)
            torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=1e-4)
