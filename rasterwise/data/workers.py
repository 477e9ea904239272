"""Reading ahead in worker processes: how many, what they are spared, and the broken images they report."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from rasterwise.errors import InputError
from rasterwise.processes import processes_here

MOST_WORKERS = 4
NAMED_BROKEN = 5

_log = logging.getLogger(__name__)


def loaded(reads: Any, batches: Iterable[Any] | None, workers: int) -> Iterator[Any]:
    """What workers read, in order, a few reads ahead.

    Args:
        reads: An object whose ``__getitems__`` reads a batch, or an IterableDataset that yields what is read.
        batches: What is handed to ``__getitems__``; None with an IterableDataset.
        workers: Processes; 0 reads here, when the next one is asked for.
    """
    how = {"batch_size": None} if isinstance(reads, IterableDataset) else {"batch_sampler": batches}
    return iter(
        DataLoader(
            reads,
            **how,
            collate_fn=_as_read,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_signals_to_the_run,
            # Its own generator: the loader's seeds are never drawn from the training run's random state.
            generator=torch.Generator(),
        )
    )


def worker_count(asked: int | None) -> int:
    """How many workers: as many as were asked for, else by this process's share of the cores: 0, 1, 2 or 4.

    Powers of two, as process counts mostly are: then streaming workers share the reading too.
    """
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = min(MOST_WORKERS, cores // processes_here() // 2)
    return 1 << share.bit_length() - 1 if share else 0


class BrokenImages(dict[int, str]):
    """Broken images that were left out, by number: what is wrong with each. New ones are logged."""

    def note(self, fetched: Any, *, logged: bool = True) -> None:
        """Take up what a read came upon; InputError where it ended with one."""
        if fetched.error:
            raise InputError(fetched.error)
        for number, message in fetched.broken.items():
            if number not in self:
                self[number] = message
                if logged and len(self) <= NAMED_BROKEN:
                    more = "; more are counted but not named" if len(self) == NAMED_BROKEN else ""
                    _log.warning("left out, number %d that is broken: %s%s", len(self), message, more)


def _as_read(read: Any) -> Any:
    return read


def _leave_signals_to_the_run(_: int) -> None:
    # Ctrl-C reaches all processes of a terminal. The run ends after its step and then lets its workers go; did
    # they die at once, it could not take that step.
    for expected in (signal.SIGINT, signal.SIGTERM):
        signal.signal(expected, signal.SIG_IGN)
