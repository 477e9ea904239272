"""The time and the peak memory of a function call, and calls in a fresh process."""

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
    """A GPU where there is one, unless the choice is the CPU."""
    return torch.device("cuda" if choice == "auto" and torch.cuda.is_available() else "cpu")


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds that the work takes, everything that it starts on the device included."""
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
    """The peak memory in use during some work.

    Attributes:
        seconds: How long the work took.
        before_bytes: Bytes in use when it began: interpreter, libraries and model included.
        peak_bytes: The most bytes in use until it ended, ``before_bytes`` included.
        method: How it was measured, since methods measure different things.
    """

    seconds: float
    before_bytes: int
    peak_bytes: int
    method: str


def with_peak_memory(work: Callable[[], object], device: torch.device) -> PeakMemory:
    """Do some work and measure its time and its peak memory."""
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
    """Reset the process's high-water mark, if the system can; returns a description of what it then measures."""
    # The allocator may still hold memory that earlier work freed; it would be counted as this work's.
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
    """Call a module's function in a process of its own, so that earlier measurements do not influence it.

    Args:
        threads: CPU threads that torch may use there; 0 for torch's own choice.
        function: A function of a module. It, its arguments and its result are pickled.

    Raises:
        BrokenProcessPool: The process was killed, most likely because memory ran out.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(threads,)) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _begin(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended: a parent that is killed cannot end it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
