"""Memory: a limit fails in the process that has it, and failures are told apart."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIMITED = """
import torch
from pipeline.compare.measurement.memory import limit_memory
from rasterwise.errors import is_out_of_memory
limit_memory(1.0, torch.device("cpu"))
try:
    torch.ones(3 * 2**30, dtype=torch.uint8)
except Exception as error:
    print("told", is_out_of_memory(error))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold a process to RLIMIT_DATA")
def test_what_is_over_the_limit_fails_and_is_told() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert done.stdout == "told True\n"
