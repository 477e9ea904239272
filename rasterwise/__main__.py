"""The command: ``rasterwise COMMAND``, or ``python -m rasterwise COMMAND``, as torchrun and accelerate start it."""

from __future__ import annotations

import sys

from rasterwise.rooms import ROOMS, load, not_ours

USAGE_ERROR = 2


def main() -> int:
    """Run the command; returns the exit status."""
    for wrong in filter(None, map(not_ours, ROOMS)):
        print(f"rasterwise: {wrong}", file=sys.stderr)
        return USAGE_ERROR
    return int(load("pipeline.cli").main())


if __name__ == "__main__":
    sys.exit(main())
