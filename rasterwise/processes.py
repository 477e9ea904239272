"""The processes of a run: which one this is, how many there are, and leaving their group."""

from __future__ import annotations

import os
import sys
from typing import Any


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
