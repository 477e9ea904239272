"""Plots as files: matplotlib where it is installed, and a PNG that is whole or absent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rasterwise.errors import InputError


def new_figure(width_inches: float, height_inches: float) -> Any:
    """An empty matplotlib figure that no window shows.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("a plot needs matplotlib: pip install 'rasterwise[plots]'") from None
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def save_figure(figure: Any, path: Path, *, dpi: int = 120) -> None:
    """Write a figure as a PNG under a temporary name and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pending = path.with_name(f".{path.name}.pending-{os.getpid()}")
    try:
        figure.savefig(pending, format="png", dpi=dpi)
        pending.replace(path)
    finally:
        pending.unlink(missing_ok=True)
