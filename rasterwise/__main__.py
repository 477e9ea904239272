"""The command: ``rasterwise COMMAND``, or ``python -m rasterwise COMMAND`` under torchrun and accelerate."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("pipeline", "pixel_baselines", "stage1_vqvae", "stage2_prior")
USAGE_ERROR = 2


def main() -> int:
    """Run the command; returns the exit status."""
    home = Path(__file__).resolve().parents[1]
    for package in PACKAGES:
        spec = find_spec(package)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or home not in origin.parents:
            print(
                f"rasterwise: {origin or package} would be imported in place of Rasterwise's own {package!r}; "
                "rename it, or run the command from another folder",
                file=sys.stderr,
            )
            return USAGE_ERROR
    return int(importlib.import_module("pipeline.cli").main())


if __name__ == "__main__":
    sys.exit(main())
