"""Measuring one piece of work: its seconds, its peak memory, and a fresh process to do it in."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import psutil
import torch

P = ParamSpec("P")
T = TypeVar("T")

DeviceChoice = Literal["auto", "cpu"]


def chosen_device(choice: DeviceChoice) -> torch.device:
    """A GPU where there is one and none forbade it."""
    return torch.device("cuda" if choice == "auto" and torch.cuda.is_available() else "cpu")


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds that the work takes, all that it started on the device included."""
    _synchronize(device)
    began = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - began


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median(values: Sequence[float]) -> float:
    """The median of raw times."""
    return float(statistics.median(values))


@dataclass(frozen=True)
class PeakMemory:
    """The most memory that was in use while some work was done.

    Attributes:
        seconds: How long the work took.
        before_bytes: In use when it began: the interpreter, the libraries and the model are in it.
        peak_bytes: The most in use until it ended; includes ``before_bytes``.
        method: What was read, since the readings mean different things.
    """

    seconds: float
    before_bytes: int
    peak_bytes: int
    method: str


def with_peak_memory(work: Callable[[], object], device: torch.device) -> PeakMemory:
    """Time the work and find its peak memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        seconds = seconds_of(work, device)
        peak = torch.cuda.max_memory_allocated(device)
        return PeakMemory(seconds, before, peak, "torch.cuda.max_memory_allocated")
    method = _restart_high_water_mark()
    before = psutil.Process().memory_info().rss
    seconds = seconds_of(work, device)
    return PeakMemory(seconds, before, max(before, _high_water_mark_bytes()), method)


def _restart_high_water_mark() -> str:
    """Make the process's high-water mark start anew, where the system can; returns what is measured then."""
    # Memory that earlier work freed and the allocator still holds would be counted as this work's.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return "high-water mark of the process since its start, earlier work included"
    return "high-water mark of the process during this work alone"


def _high_water_mark_bytes() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_fresh_process(threads: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a module's function in a process of its own, so that nothing measured before is felt in it.

    Args:
        threads: CPU threads that torch may use there; 0 for torch's own choice.
        function: And its arguments; they and what it returns are pickled.

    Raises:
        BrokenProcessPool: The process was killed, for memory most likely.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(threads,)) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _begin(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: killed, it could not tell."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
