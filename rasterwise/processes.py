"""The processes of a run: which one this is, how many there are, and leaving their group."""

from __future__ import annotations

import os
import sys
from typing import Any


def leave_process_group() -> None:
    """Part from the other processes in order, where there are any.

    A process that exits while another still talks to it can bring that one down with an abort.
    """
    if "torch" not in sys.modules:
        return
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def is_main_process() -> bool:
    """True in the one process that prints, when torchrun or accelerate started several."""
    return int(os.environ.get("RANK", "0")) == 0


def _all_agree(here: bool) -> bool:
    """Whether it is so on every process: one that reads otherwise would draw its share of other batches."""
    import torch.distributed as distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return here
    answers: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(answers, here)
    return all(answers)


def processes_here() -> int:
    """How many processes torchrun or accelerate started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
