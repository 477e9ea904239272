"""Damage to the files of a folder, drawn from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (None, True, -1, 0, 1.5, 7, "x", "7", [], [1], {}, {"a": 1}, float("nan"))
"""What a JSON value is replaced by."""


def flip(path: Path, rng: random.Random) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    """Keep the beginning of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))] if content else b"")


def empty(path: Path, rng: random.Random) -> None:
    """Keep nothing of a file."""
    path.write_bytes(b"")


def swap(path: Path, rng: random.Random) -> None:
    """Exchange a file with another one of the folder, of the same kind where there is one."""
    others = [other for other in files_of(root_of(path)) if other != path]
    alike = [other for other in others if other.suffix == path.suffix]
    other = rng.choice(alike or others)
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def retype(path: Path, rng: random.Random) -> None:
    """Replace a value of a JSON file, or of a line of one, by a value of another type."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    index = rng.randrange(len(lines))
    content = json.loads(lines[index])
    holders = _holders(content)
    holder, key = holders[rng.randrange(len(holders))]
    holder[key] = rng.choice([value for value in VALUES if type(value) is not type(holder[key])])
    lines[index] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _holders(content: Any) -> list[tuple[Any, Any]]:
    """Every value in JSON content: the object or list that holds it, and its name or index there."""
    if isinstance(content, dict):
        positions = [(content, name) for name in content]
    elif isinstance(content, list):
        positions = [(content, index) for index in range(len(content))]
    else:
        return []
    return positions + [one for holder, key in positions for one in _holders(holder[key])]


ROOT_MARK = ".root"
"""An empty file in the folder that is damaged: files are exchanged within it."""


def root_of(path: Path) -> Path:
    return next(parent for parent in path.parents if (parent / ROOT_MARK).exists())


def files_of(folder: Path) -> list[Path]:
    """All files of a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ROOT_MARK)


Damage = Callable[[Path, random.Random], None]


def damage(folder: Path, rng: random.Random, kinds: tuple[Damage, ...]) -> str:
    """Damage a file in one way; returns what was done, for the message of a test that fails.

    JSON values are replaced in JSON files alone: where that is among the kinds, it is half of the damages.
    """
    files = files_of(folder)
    path, kind = rng.choice(files), rng.choice(kinds)
    if retype in kinds and rng.random() < 0.5:
        kind = retype
    if kind is retype:
        path = rng.choice([file for file in files if file.suffix in (".json", ".jsonl")])
    kind(path, rng)
    return f"{kind.__name__} {path.relative_to(folder)}"
