"""Processes with workers come to their end, whatever happens to them or to the workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import multiprocessing, os, signal, sys
import torch
from rasterwise.command_line.run import report_of
from rasterwise.data.indexed import IndexedSplit
from rasterwise.data.splits import Batch, Fetched

class Items:
    def __len__(self):
        return 64

    def fetch(self, indices, *, replace):
        FETCHING
        return Fetched(Batch(torch.zeros(len(indices), 3, SIZE, SIZE, dtype=torch.uint8)), {})

def work():
    batches = IndexedSplit(Items(), "", workers=2).shuffled(8, seed=0)
    next(batches)
    FAULT
    for _ in range(20):
        next(batches)
    return {"batches": 20}

sys.exit(report_of(work, as_json=True))
"""
SECONDS = 120


def ended(
    fault: str, size: int = 8, before: tuple[str, ...] = (), fetching: str = "pass"
) -> subprocess.CompletedProcess[str]:
    """A process with two workers, after a fault; it has long to end, and none of its tests waits for so long."""
    code = CODE.replace("FAULT", fault).replace("FETCHING", fetching).replace("SIZE", str(size))
    return subprocess.run(
        [*before, sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS
    )


def test_without_a_fault() -> None:
    """Else the tests below would show nothing."""
    done = ended("pass")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_exception_ends_a_process_with_workers() -> None:
    """With its traceback; workers ignore the SIGTERM that multiprocessing sends them, and are waited for."""
    done = ended("raise ValueError('a defect')")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: a defect\n")


def test_a_worker_that_is_killed_ends_in_a_line() -> None:
    done = ended("os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)")
    assert done.returncode == 2
    assert "a process that reads data has died" in done.stderr
    assert "--workers 0" in done.stderr
    assert done.stderr.count("\n") == 1


def test_little_memory_in_a_worker_ends_in_a_line() -> None:
    done = ended("pass", fetching="if 63 in indices: bytearray(1 << 60)")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("rasterwise: memory did not suffice (MemoryError)")


def test_little_shared_memory_ends_in_a_line(tmp_path: Path) -> None:
    """A container has 64 MB where it is given no more; a worker that writes beyond them gets a bus error."""
    mount = "mount -t tmpfs -o size=1m none /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this process may not mount a small /dev/shm")
    done = ended("pass", size=512, before=("unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"))
    assert done.returncode == 2, done.stderr
    assert "/dev/shm has 1 MiB" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("rasterwise: shared memory did not suffice")
