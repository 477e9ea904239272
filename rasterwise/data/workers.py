"""Worker processes that read ahead: how many there are, what they do, and the broken images that they report."""

from __future__ import annotations

import atexit
import functools
import logging
import multiprocessing
import os
import signal
import weakref
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from rasterwise.errors import READER_DIED, InputError
from rasterwise.processes import processes_here

MOST_WORKERS = 4
NAMED_BROKEN = 5

_log = logging.getLogger(__name__)
_workers: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def loaded(reads: Any, batches: Iterable[Any] | None, workers: int) -> Iterator[Any]:
    """What workers read, in order; they are a few reads ahead.

    Args:
        reads: An object whose ``__getitems__`` reads a batch, or an IterableDataset that yields what is read.
        batches: What is handed to ``__getitems__``; None with an IterableDataset.
        workers: Processes; 0 reads in this process, when the next batch is asked for.
    """
    before = set(multiprocessing.active_children())
    how = {"batch_size": None} if isinstance(reads, IterableDataset) else {"batch_sampler": batches}
    reading = iter(
        DataLoader(
            reads,
            **how,
            collate_fn=_shared,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_signals_to_the_run,
            # Its own generator: the loader's seeds are never drawn from the training run's random state.
            generator=torch.Generator(),
        )
    )
    return _Reading(reading, set(multiprocessing.active_children()) - before) if workers else reading


def worker_count(asked: int | None) -> int:
    """How many workers to use: as many as were asked for, else 0, 1, 2 or 4 by this process's share of the cores.

    They are powers of two, as counts of processes mostly are: streaming workers then share the reading too.
    """
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = min(MOST_WORKERS, cores // processes_here() // 2)
    return 1 << share.bit_length() - 1 if share else 0


class BrokenImages(dict[int, str]):
    """What is wrong with each broken image that was left out, by its index. New ones are logged."""

    def note(self, fetched: Any, *, logged: bool = True) -> None:
        """Add the broken images that a read found; InputError where it ended with one."""
        if fetched.error:
            raise InputError(fetched.error)
        for index, message in fetched.broken.items():
            if index not in self:
                self[index] = message
                if logged and len(self) <= NAMED_BROKEN:
                    more = "; more are counted but not named" if len(self) == NAMED_BROKEN else ""
                    _log.warning("left out, %d of the broken images: %s%s", len(self), message, more)


class _Reading(Iterator[Any]):
    """A loader's iterator, with the workers that it has started."""

    def __init__(self, reading: Iterator[Any], workers: set[BaseProcess]) -> None:
        self._reading, self._own = reading, workers
        _workers.update(workers)
        _kill_workers_at_exit()

    def __next__(self) -> Any:
        try:
            return next(self._reading)
        except (RuntimeError, OSError, EOFError):
            # A worker that dies takes along what it was handing over; what fails first is a matter of chance.
            dead = wait([worker.sentinel for worker in self._own], timeout=1)
            ended = [worker for worker in self._own if worker.sentinel in dead]
            for worker in ended:
                worker.join()
            statuses = {worker.exitcode for worker in ended} - {0}
            if not statuses or -getattr(signal, "SIGBUS", 0) in statuses:  # no shared memory: torch says so
                raise
            raise InputError(READER_DIED.format(f"status {min(statuses, key=str)}")) from None


@functools.cache
def _kill_workers_at_exit() -> None:
    # A process that ends with an exception still holds its loaders. multiprocessing would then send their workers
    # a SIGTERM, which they ignore, and wait for them for ever. What is registered last is called first.
    atexit.register(_kill_workers)


def _kill_workers() -> None:
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise that they have died
    for worker in list(_workers):
        worker.kill()


def _shared(read: Any) -> Any:
    # Without this, a worker's queue moves the tensors to shared memory, in a thread: where that fails, the thread
    # drops them and the run waits for ever. Here it fails as the read itself would.
    return read.share_memory() if get_worker_info() else read


def _leave_signals_to_the_run(_: int) -> None:
    # Ctrl-C reaches all processes of a terminal. The run ends after its step and then stops its workers. If they
    # died at once, it could not finish that step.
    for expected in (signal.SIGINT, signal.SIGTERM):
        signal.signal(expected, signal.SIG_IGN)
