"""What one of two processes meets: ``torchrun -m tests.rasterwise.failing CASE``."""

from __future__ import annotations

import sys
from typing import Any

import torch
from accelerate import Accelerator

from rasterwise.command_line.run import report_of
from rasterwise.errors import InputError
from rasterwise.measure.metrics import Means


def work(case: str) -> dict[str, Any]:
    """Count what the first process alone has, or fail on one process or on both."""
    accelerator = Accelerator(cpu=True)
    main = accelerator.is_main_process
    if case == "means":
        means = Means()
        if main:
            means.add(here=torch.tensor([1.0, 2.0]), both=torch.tensor([1.0]))
        else:
            means.add(both=torch.tensor([4.0]), there=torch.tensor([5.0]))
        means.reduce(accelerator)
        return {name: [means.mean(name), means.count(name)] for name in ("here", "both", "there")}
    if case == "both" or (case == "one" and not main):
        raise InputError(f"no such data for {case}")
    if case == "defect" and main:
        raise ValueError("a defect")
    accelerator.wait_for_everyone()
    return {}


if __name__ == "__main__":
    sys.exit(report_of(lambda: work(sys.argv[1]), as_json=True))
