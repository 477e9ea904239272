"""Plots as PNG files, drawn by matplotlib where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rasterwise.errors import InputError
from rasterwise.files import new_file


def require_matplotlib() -> None:
    """Raise InputError where matplotlib is not installed; call it before work that a plot ends."""
    if find_spec("matplotlib") is None:
        raise InputError("a plot needs matplotlib: pip install 'rasterwise[plots]'")


def new_figure(width_inches: float, height_inches: float) -> Any:
    """An empty matplotlib figure, drawn without a window.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def save_figure(figure: Any, path: Path, *, dpi: int = 120) -> None:
    """Write a figure as a PNG; the file is whole or absent."""
    with new_file(path) as pending:
        figure.savefig(pending, format="png", dpi=dpi)
