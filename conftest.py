"""How the tests run: one thread each, and the whole suite on all cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is loaded; the processes that tests start inherit it

MOST_WORKERS = 8
"""Each holds torch, and perhaps a training."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share whole folders of tests among the cores; a test or a file that is named runs in this process.

    Any ``-n``, ``--pdb`` or ``-p no:xdist`` has its way. Work is stolen rather than dealt out: neighbouring tests
    stay together, so that the fixtures of a module are seldom made twice.
    """
    option = config.option
    asked_otherwise = getattr(option, "numprocesses", 0) is not None or option.usepdb or option.collectonly
    if asked_otherwise or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if all(Path(argument).is_dir() for argument in config.args):
        option.numprocesses = min(MOST_WORKERS, _usable_cores())
        option.dist = "worksteal"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: the last one to begin decides when the suite ends."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
