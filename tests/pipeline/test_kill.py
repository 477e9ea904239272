"""A training that is killed at random moments ends as if it had not been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.killing import STAGES


@pytest.mark.parametrize("runs", [2, pytest.param(40, marks=pytest.mark.long)])
def test_killed_runs_end_in_the_weights_of_one_that_was_not(runs: int, tmp_path: Path) -> None:
    """Each stage, by SIGKILL, saves included: no run fails to start, and every file is the same, bit for bit."""
    command = [sys.executable, "-m", "tests.killing", str(tmp_path), "--runs", str(runs), "--seed", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert list(outcomes) == list(STAGES)
    for stage, outcome in outcomes.items():
        assert outcome["failed"] == [], stage
        assert outcome["runs"] == outcome["identical"] == runs
        assert outcome["kills"] >= runs
    if runs > 2:
        assert all(outcome["during_save"] for outcome in outcomes.values())
