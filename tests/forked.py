"""Processes forked from one that has imported torch and the commands, so that a start costs no imports.

What they run is what ``python -m MODULE`` runs. Where the launcher or the interpreter's own end is what a test is
about, it starts ``python`` or ``torchrun`` itself.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import TCPStore

PRELOADED = (
    "pytest", "torch", "torch.distributed.fsdp", "torch.utils.tensorboard", "accelerate", "datasets",
    "sklearn.datasets", "pipeline.cli", "pipeline.commands.evaluate", "pipeline.commands.sample",
    "pixel_baselines.models", "rasterwise.training.loop", "stage1_vqvae.objective", "stage2_prior.models",
    "tests.autoregressive_suite",
)  # fmt: skip
"""They compute nothing: threads that they had started would not live on in the forks."""

SECONDS = 1200.0
GRACE_SECONDS = 20.0
"""A process whose fellow has failed is given so long to end of itself; torchrun's agent gives 30 s."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(list(PRELOADED))


@dataclass(frozen=True)
class Ended:
    """How a process has ended.

    Attributes:
        status: Its exit status, or minus the signal that killed it.
        out: What it printed.
        err: What it said on standard error.
    """

    status: int
    out: str
    err: str


def module(name: str, *words: object) -> Callable[[], object]:
    """What ``python -m NAME WORDS`` does."""
    return _Module(name, tuple(map(str, words)))


@dataclass(frozen=True)
class _Module:
    name: str
    words: tuple[str, ...]

    def __call__(self) -> None:
        sys.argv = [self.name, *self.words]
        runpy.run_module(self.name, run_name="__main__", alter_sys=True)


def fork(work: Callable[[], object], *, seconds: float = SECONDS) -> Ended:
    """Do some work, which is pickled, in a process of its own; one that takes longer is killed."""
    return _together(work, [{}], seconds)[0]


def fork_two(work: Callable[[], object], *, agent: bool = False) -> tuple[Ended, Ended]:
    """Do the same work in two processes.

    Args:
        work: What both do; it is pickled.
        agent: They find each other by the store that torchrun's agent keeps, which outlives them; otherwise as those
            of SLURM do, by torchrun's variables alone.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    both = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    store = None
    if agent:
        store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
        both |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    ranks = [{**both, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    first, second = _together(work, ranks, SECONDS)
    del store
    return first, second


def _together(
    work: Callable[[], object], environments: Sequence[Mapping[str, str]], seconds: float
) -> list[Ended]:
    with tempfile.TemporaryDirectory() as folder:
        printed = [(Path(folder, f"{i}.out"), Path(folder, f"{i}.err")) for i in range(len(environments))]
        processes = [
            _forks.Process(target=_begin, args=(work, {**os.environ, **environment}, os.getcwd(), *paths))
            for environment, paths in zip(environments, printed, strict=True)
        ]
        for process in processes:
            process.start()
        began, failed = time.monotonic(), None
        while any(process.is_alive() for process in processes):
            for process in processes:
                process.join(0.02)
            if failed is None and any(process.exitcode for process in processes):
                failed = time.monotonic()
            late = failed is not None and time.monotonic() - failed > GRACE_SECONDS
            if late or time.monotonic() - began > seconds:
                for process in processes:
                    process.kill()
        read = [[path.read_text() if path.exists() else "" for path in paths] for paths in printed]
        return [
            Ended(process.exitcode or 0, out, err)
            for process, (out, err) in zip(processes, read, strict=True)
        ]


def _begin(
    work: Callable[[], object], environment: dict[str, str], folder: str, out: Path, err: Path
) -> None:
    for number, path in ((1, out), (2, err)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    status = work()
    sys.exit(status if isinstance(status, int) else 0)
