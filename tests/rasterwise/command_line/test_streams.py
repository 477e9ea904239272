"""A command comes to its end whatever becomes of its standard output, and of the first seconds of its life."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PYTHON = sys.executable
REPORT = (
    "import sys; from rasterwise.command_line.streams import guarded, prepare_streams;"
    "from rasterwise.command_line.run import report_of; prepare_streams();"
    "sys.exit(guarded(lambda: report_of(lambda: {'output': 'caf\u00e9', 'n': 'x' * 100000}, as_json=True)))"
)


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-c", f"set -o pipefail; {command}"]
    return subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, **environment}, timeout=200
    )


@pytest.mark.parametrize(
    ("redirected", "status", "said"),
    [
        ("| head -c 1", 0, ""),
        ("> /dev/full", 1, "rasterwise: standard output cannot be written (No space left on device)\n"),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("<&-", 0, ""),
    ],
)
def test_output_that_cannot_be_written(redirected: str, status: int, said: str) -> None:
    """A report that nobody reads any more is no fault; one that has no room is told in a line."""
    done = shell(f'{PYTHON} -c "{REPORT}" {redirected}')
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize("command", ["--help", "plot --help"])
def test_help_that_cannot_be_written(command: str) -> None:
    """Of the bare command, and of one whose help tyro writes; this one starts quickly, without torch."""
    full = shell(f"{PYTHON} -m rasterwise {command} > /dev/full")
    assert full.returncode == 1
    assert full.stderr == "rasterwise: standard output cannot be written (No space left on device)\n"
    for redirected in ("| head -1", ">&-", "2>&-"):
        done = shell(f"{PYTHON} -m rasterwise {command} {redirected}")
        assert (done.returncode, done.stderr) == (0, ""), redirected


def test_a_report_in_ascii(tmp_path: Path) -> None:
    """JSON has escapes of its own for what ASCII lacks; help is shown as far as it goes."""
    ascii_alone = {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}
    done = shell(f'{PYTHON} -c "{REPORT}"', **ascii_alone)
    assert json.loads(done.stdout)["output"] == "caf\u00e9"
    assert done.stdout.isascii()
    assert shell(f"{PYTHON} -m rasterwise plot --help", **ascii_alone).returncode == 0


def test_leftovers_of_torchrun_are_named() -> None:
    """Without the others, a process with RANK=1 would keep its report to itself, and WORLD_SIZE=2 wait for another."""
    for left, named in (({"RANK": "1"}, "RANK is set"), ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set")):
        done = shell(f'{PYTHON} -c "{REPORT}"', **left)
        assert done.returncode == 2
        assert done.stdout == ""
        assert named in done.stderr
        assert "start several processes with torchrun, or unset" in done.stderr
    done = shell(f'{PYTHON} -c "{REPORT}"', RANK="0", WORLD_SIZE="1")
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_while_it_starts() -> None:
    """At several moments of the imports: one line at most, and the status of an interruption."""
    command = [PYTHON, "-m", "rasterwise", "sample", "--pipeline", "/nowhere"]
    for after in (0.3, 0.7, 1.2, 1.8):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=200)[1]
        early = (
            "runpy" in said and "rasterwise/command_line" not in said
        )  # the interpreter itself was starting
        if said.startswith("rasterwise: '/nowhere' is no folder"):
            assert process.returncode in (2, 130, -signal.SIGINT), said
            continue  # a fast machine, on which it had ended or was ending
        # A shell shows 130 for a process that ended by the signal, which it may do after its line.
        assert early or process.returncode in (130, -signal.SIGINT), said
        assert early or said == "rasterwise: interrupted\n" or (not said and process.returncode != 130), said


def test_ctrl_c_of_which_a_library_makes_an_error() -> None:
    """It is an interruption all the same; an error that nobody has interrupted keeps its traceback."""
    code = (
        "import contextlib, signal, sys; from rasterwise.command_line.streams import guarded\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell's background job ignores
        "def work():\n"
        "    with contextlib.suppress(KeyboardInterrupt):\n"
        "        {}\n"
        "    raise RecursionError('of a library')\n"
        "sys.exit(guarded(work))\n"
    )
    for before, status, said in (
        ("signal.raise_signal(signal.SIGINT)", 130, "rasterwise: interrupted\n"),
        ("pass", 1, "RecursionError: of a library\n"),
    ):
        done = subprocess.run([PYTHON, "-c", code.format(before)], capture_output=True, text=True)
        assert done.returncode == status
        assert done.stderr.endswith(said)
        assert ("Traceback" in done.stderr) == (status == 1)


def test_without_docstrings() -> None:
    """python -OO is refused: transformers cannot be imported without its docstrings."""
    done = shell(f"{PYTHON} -OO -m rasterwise sample --help")
    assert done.returncode == 2
    assert done.stderr.startswith("rasterwise: python -OO takes docstrings away")
    assert done.stderr.count("\n") == 1
