"""A training or an encoding that is killed ends as if it had not been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.killing import CASES


def outcomes(folder: Path, *words: str) -> dict[str, Any]:
    """What came of all cases, none of which failed."""
    command = [sys.executable, "-m", "tests.killing", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == list(CASES)
    for case, outcome in found.items():
        assert outcome["failed"] == [], case
        assert outcome["runs"] == outcome["identical"], case
    return found


@pytest.mark.slow
def test_killed_commands_leave_what_one_that_was_not_killed_leaves(tmp_path: Path) -> None:
    """Each case once at random moments, before two operations on files, and within limits: every file is the same."""
    for case, outcome in outcomes(tmp_path, "--runs=1", "--kills=2", "--points=2", "--limits=1").items():
        assert outcome["runs"] == 5, case
        assert outcome["kills"] >= 2, case
        assert outcome["limited"]["files: line"] == 1, case


@pytest.mark.long
def test_many_killed_commands_at_random_moments(tmp_path: Path) -> None:
    """40 runs of each case, saves included."""
    for case, outcome in outcomes(tmp_path, "--runs=40", "--seed=40").items():
        assert outcome["kills"] >= 40, case
        assert outcome["during_save"], case


@pytest.mark.long
def test_commands_within_limits_of_files_and_memory(tmp_path: Path) -> None:
    """Each says in one line what it lacked, and goes on where there is enough."""
    for case, outcome in outcomes(tmp_path, "--limits=20").items():
        assert outcome["limited"]["files: line"] == 20, case
        assert outcome["limited"]["memory: line"], case


@pytest.mark.long
def test_commands_killed_before_every_operation_on_files(tmp_path: Path) -> None:
    """Just after the lock is made and between temporary files among them; what goes on is killed once more."""
    for case, outcome in outcomes(tmp_path, "--points=0").items():
        assert set(outcome["before"]) >= {"open", "os.mkdir", "os.rename", "os.remove", "fcntl.lockf"}, case
