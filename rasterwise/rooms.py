"""The packages above this one, loaded by name: each must be Rasterwise's own, not a user's of the same name."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

ROOMS = ("pixel_baselines", "stage1_vqvae", "stage2_prior", "pipeline")
HOME = Path(__file__).resolve().parents[1]
"""The folder that all of them are in."""


def load(module: str) -> ModuleType:
    """Import a module of one of the rooms.

    Raises:
        ImportError: See ``in_the_way``.
    """
    wrong = in_the_way()
    if wrong:
        raise ImportError(wrong)
    return importlib.import_module(module)


def in_the_way() -> str:
    """What is wrong, in one line, where the name of any room leads to another file than ours; else nothing."""
    return next(filter(None, map(not_ours, ROOMS)), "")


def not_ours(room: str) -> str:
    """As ``in_the_way``, of one room.

    The rooms' names are words that a user's own files may have, and Python looks for them first in the folder that
    a program starts in.
    """
    spec = find_spec(room)
    if spec is not None and spec.origin is None and str(HOME) not in sys.path:
        sys.path.append(
            str(HOME)
        )  # a plain folder hides an editable installation, but no package on the path
        spec = find_spec(room)
    if spec is None:
        return f"the package {room!r} of Rasterwise is missing; install Rasterwise again"
    if spec.origin is not None and Path(spec.origin).resolve() == HOME / room / "__init__.py":
        return ""
    found = spec.origin or next(iter(spec.submodule_search_locations or [room]))
    return (
        f"{found} would be imported in place of Rasterwise's own package {room!r}; rename it, or work in another "
        "folder"
    )
