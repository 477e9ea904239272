"""The command: ``rasterwise COMMAND``, or ``python -m rasterwise COMMAND``, as torchrun and accelerate start it."""

from __future__ import annotations

import sys

from rasterwise.command_line.statuses import USER_ERROR
from rasterwise.command_line.streams import guarded, prepare_streams
from rasterwise.rooms import in_the_way, load


def main() -> int:
    """Run the command; returns the exit status."""
    prepare_streams()
    return guarded(_command)


def _command() -> int:
    wrong = in_the_way()
    if wrong:
        print(f"rasterwise: {wrong}", file=sys.stderr)
        return USER_ERROR
    if sys.flags.optimize > 1:
        print(
            "rasterwise: python -OO takes docstrings away, which transformers and the help need; use python -O at most",
            file=sys.stderr,
        )
        return USER_ERROR
    return int(load("pipeline.cli").main())


if __name__ == "__main__":
    sys.exit(main())
