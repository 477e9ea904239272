"""The processes of a run: which one this is, how many there are, and leaving their group."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rasterwise.errors import InputError

STORE_SECONDS = 10
MEETING_SECONDS = 60
"""Processes that torchrun has not started, but SLURM, say, have so long to find one another."""
OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def leave_process_group() -> None:
    """Leave the process group once all processes are ready to, if there is one.

    A process that exits while another one is still communicating with it can make that one abort.
    """
    if "torch" not in sys.modules:
        return
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def is_main_process() -> bool:
    """Whether this is the process that prints, of those that torchrun or accelerate started."""
    return int(os.environ.get("RANK", "0")) == 0


_store: Any = None
"""That of the first of several processes without an agent: torch takes over the one that listens already."""


def refuse_leftover_environment() -> None:
    """Raise an InputError if torchrun's variables are set, some of them or all, and no other process is there.

    They were left over, then: this process would wait for others, half an hour long, or keep its report to itself.
    """
    _refuse_half_an_environment()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _meet_the_others()


def _refuse_half_an_environment() -> None:
    given = [name for name in OF_TORCHRUN if name in os.environ]
    lacking = [name for name in OF_TORCHRUN if name not in os.environ]
    alone = os.environ.get("WORLD_SIZE", "1") == "1" and os.environ.get("RANK", "0") == "0"
    if lacking and not alone:
        raise InputError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} set in the environment, but not "
            f"{', '.join(lacking)}; start several processes with torchrun, or unset {' and '.join(given)}"
        )


def _meet_the_others() -> None:
    """Wait until all processes are there. torchrun's agent is there before them, and knows of each."""
    global _store
    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not has_agent:
        import torch.distributed as distributed
    deadline = time.monotonic() + (STORE_SECONDS if has_agent else MEETING_SECONDS)

    def wait_until(condition: Callable[[], bool]) -> None:
        while not condition():
            if time.monotonic() > deadline:
                raise InputError(
                    f"RANK={rank} and WORLD_SIZE={world} are set in the environment, but the other processes are not "
                    f"found at {host}:{port}; start them with torchrun, or unset RANK and WORLD_SIZE"
                )
            time.sleep(0.05)

    if has_agent or rank:
        wait_until(lambda: _listens(host, port))
    if not has_agent:
        try:
            _store = distributed.TCPStore(
                host, int(port), is_master=not rank, wait_for_workers=False, multi_tenant=True
            )
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"RANK={rank} and WORLD_SIZE={world} are set in the environment, but {host}:{port} cannot be used "
                f"({str(error).splitlines()[0]}); start several processes with torchrun, or unset RANK and WORLD_SIZE"
            ) from None
        _store.add("rasterwise/met", 1)
        wait_until(lambda: bool(_store.add("rasterwise/met", 0) >= world))


def _listens(host: str, port: str) -> bool:
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def first_to_fail() -> bool:
    """Whether this process is the first of its run that fails: the one that should say why.

    The others fail next, for want of it in whatever they exchange, and their reasons would hide the one that counts.
    torchrun's agent keeps the count, since it outlives every process.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    import torch.distributed as distributed

    try:
        store = distributed.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=STORE_SECONDS),
        )
        return store.add(f"rasterwise/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1) == 1
    except (RuntimeError, KeyError):  # the agent is gone, and with it whoever else could say it
        return True


def all_agree(here: bool) -> bool:
    """Whether a statement is true on every process; all processes call this.

    A decision on how data are read, for one, must be the same everywhere: else processes would take their shares
    of different batches.
    """
    import torch.distributed as distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return here
    answers: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(answers, here)
    return all(answers)


def processes_here() -> int:
    """How many processes torchrun or accelerate started on this machine; 1 without them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
