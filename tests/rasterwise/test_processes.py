"""Several processes change the speed of a training, not its mathematics."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rasterwise import processes
from rasterwise.errors import InputError
from rasterwise.files import load_tensors
from rasterwise.training.run.metrics_log import METRICS_NAME, read_metrics
from tests.forked import fork, fork_two, module
from tests.processes import QUANTIZED, STAGES, STEPS

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]


def one(*words: object) -> None:
    """Train in one process."""
    ended = fork(module("tests.processes", *words))
    assert ended.status == 0, ended.err[-2000:]


def two(*words: object) -> None:
    """Train in two."""
    for ended in fork_two(module("tests.processes", *words)):
        assert ended.status == 0, ended.err[-2000:]


def metrics(run: Path, split: str) -> dict[str, list[float]]:
    chosen = [line for line in read_metrics(run / METRICS_NAME) if line.split == split]
    assert chosen[-1].step == STEPS
    assert split == "test" or len(chosen) == STEPS
    # A discriminator shows some of its losses from its start on.
    return {
        name: [line.metrics[name] for line in chosen if name in line.metrics] for name in chosen[-1].metrics
    }


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_do_what_one_does(accumulate: int, tmp_path: Path) -> None:
    """At the same global batch: the losses of 50 steps to 1e-5, and the same weights and codebooks on both."""
    one(tmp_path / "one", 1)
    two(tmp_path / "two", accumulate)
    for stage in STAGES:
        alone, shared = (metrics(tmp_path / folder / stage, "train") for folder in ("one", "two"))
        assert alone.keys() == shared.keys()
        for name in alone.keys() - {"psnr_db"}:  # the mean of two logarithms is not that of the mean
            assert shared[name] == pytest.approx(alone[name], rel=1e-5, abs=1e-5), (stage, name)
        first, second = (
            load_tensors(tmp_path / "two" / stage / f"process-{rank}.safetensors") for rank in (0, 1)
        )
        for name, tensor in load_tensors(tmp_path / "one" / stage / "process-0.safetensors").items():
            assert torch.equal(first[name], second[name]), (stage, name)
            torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_quantize_as_one_does(tmp_path: Path) -> None:
    """With every quantizer that draws nothing: the same losses, weights and codebooks."""
    stages = [stage for stage in QUANTIZED if stage != "vqvae-k-means"]
    one(tmp_path / "one", 1, *stages)
    two(tmp_path / "two", 1, *QUANTIZED)
    for stage in stages:
        alone, shared = (metrics(tmp_path / folder / stage, "train") for folder in ("one", "two"))
        for name in alone.keys() - {"psnr_db"}:
            assert shared[name] == pytest.approx(alone[name], rel=1e-5, abs=1e-5), (stage, name)
    for stage in QUANTIZED:
        first, second = (
            load_tensors(tmp_path / "two" / stage / f"process-{rank}.safetensors") for rank in (0, 1)
        )
        for name in first:
            assert torch.equal(first[name], second[name]), (stage, name)


@pytest.mark.slow
def test_two_processes_share_out_the_weights(tmp_path: Path) -> None:
    """FSDP: what one process does, saved whole; a checkpoint is an ordinary one, and goes on bit for bit."""
    one(tmp_path / "one", 1, "prior")
    two(tmp_path / "two", 2, "prior", "sharded")
    alone, shared = tmp_path / "one" / "prior", tmp_path / "two" / "prior"
    for split in ("train", "test"):
        expected, actual = metrics(alone, split), metrics(shared, split)
        for name in expected:
            assert actual[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), (split, name)
    model, last = "model/model.safetensors", f"checkpoints/step-{STEPS:08d}"
    for file in (model, "model-best/model.safetensors", f"{last}/state.safetensors"):
        whole, again = load_tensors(alone / file), load_tensors(shared / file)
        assert whole.keys() == again.keys()
        for name in whole.keys() - {"random_states"}:
            torch.testing.assert_close(again[name], whole[name], rtol=1e-3, atol=1e-4)
    before = (shared / model).read_bytes()
    shutil.rmtree(shared / last)
    two(tmp_path / "two", 2, "prior", "sharded")
    assert (shared / model).read_bytes() == before


def test_means_of_what_one_process_has_not_seen() -> None:
    """A process without a test image, or with fewer kinds of them, keeps nobody waiting.

    The two meet without torchrun, by its variables alone, as SLURM starts them.
    """
    first, second = fork_two(module("tests.rasterwise.failing", "means"))
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert json.loads(first.out) == {"here": [1.5, 2], "both": [2.5, 2], "there": [5.0, 1]}
    assert not second.out


@pytest.mark.slow
def test_one_process_reports_a_mistake_under_torchrun() -> None:
    """In one line of the process that finds it; the other, which waits for it, leaves without a word."""
    command = [*TORCHRUN, "tests.rasterwise.failing", "one"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    ours = done.stderr.split("ChildFailedError")[0]
    assert done.returncode != 0
    assert ours.count("rasterwise: no such data for one\n") == 1
    assert "Connection closed" not in done.stderr
    assert "InputError" not in done.stderr


@pytest.mark.parametrize("case", ["both", "one"])
def test_one_process_reports_a_mistake(case: str) -> None:
    """In one line and nothing else, whichever process finds it; none of them ends well."""
    ended = fork_two(module("tests.rasterwise.failing", case), agent=True)
    assert all(one.status not in (0, -signal.SIGKILL) for one in ended)
    assert "".join(one.err for one in ended) == f"rasterwise: no such data for {case}\n"
    assert not any(one.out for one in ended)


def test_one_process_reports_a_defect() -> None:
    """With one traceback, its own."""
    first, second = fork_two(module("tests.rasterwise.failing", "defect"), agent=True)
    assert first.err.count("ValueError: a defect\n") == 1
    assert not second.err
    assert first.status == 1
    assert second.status not in (0, -signal.SIGKILL)


@pytest.mark.parametrize("left", [{"RANK": "0"}, {"RANK": "1"}, {"TORCHELASTIC_USE_AGENT_STORE": "True"}])
def test_leftover_variables_of_torchrun_end_in_a_line(
    left: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are set and nobody is there: the first process, another one, one whose agent has gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", **left}
    for name, value in {**variables, "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "MEETING_SECONDS", 0.2)
    monkeypatch.setattr(processes, "STORE_SECONDS", 0.2)
    monkeypatch.setattr(processes, "_store", None)
    with pytest.raises(InputError, match=rf"not found at 127.0.0.1:{port}; .* unset RANK and WORLD_SIZE"):
        processes.refuse_leftover_environment()
