"""Manifests: a file that holds the SHA-256 of a folder's other files, so that what is opened is what was saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rasterwise.errors import InputError
from rasterwise.files.json_objects import as_json, sealed

MANIFEST_NAME = "manifest.json"
THREADS = 4
"""Files that are hashed at once. Hashing runs outside Python's lock, and many disks are faster than one core."""


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Write a folder's manifest. Call it when the files are complete, before the folder takes its name.

    Args:
        folder: Where ``manifest.json`` goes.
        names: The files, relative to the folder, with ``/`` between the parts of a path.
    """
    content = sealed({"files": {name: sha256_of(folder / name) for name in sorted(names)}})
    (folder / MANIFEST_NAME).write_bytes(_text(content))


def verify_manifest(folder: Path, names: Iterable[str], mend: str) -> None:
    """Check the files of a folder. A folder without a manifest, as earlier versions wrote it, passes.

    Args:
        folder: Where the manifest is.
        names: The files that must be there. Every byte of them is read.
        mend: What the user can do about damage, for the error.

    Raises:
        InputError: A file is not what was saved.
    """
    if (folder / MANIFEST_NAME).exists() and (damage := damage_of(folder, names)):
        raise InputError(f"{folder}: {damage}; {mend}")


def damage_of(folder: Path, names: Iterable[str]) -> str | None:
    """The first damage found, such as "model.safetensors is damaged"; None where every file is what was saved."""
    try:
        saved = _read(folder / MANIFEST_NAME)
    except FileNotFoundError:
        return f"{MANIFEST_NAME} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST_NAME} is damaged"
    lacking = sorted({*names} - saved.keys())
    if lacking:
        return f"{MANIFEST_NAME} lacks {lacking[0]}"
    with ThreadPoolExecutor(THREADS) as pool:
        damages = pool.map(lambda name: _damage(folder, name, saved[name]), sorted(saved))
        return next((damage for damage in damages if damage), None)


def _damage(folder: Path, name: str, saved: str) -> str | None:
    try:
        return None if sha256_of(folder / name) == saved else f"{name} is damaged"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(content: dict[str, Any]) -> bytes:
    return (as_json(content) + "\n").encode()


def _read(path: Path) -> dict[str, str]:
    """The digests in a manifest. It has a checksum of its own, so that its damage is not blamed on another file."""
    text = path.read_bytes()
    content = json.loads(text)
    files = content["files"]
    if content.keys() == {"files", "sha256"}:  # an earlier version's
        whole = content["sha256"] == hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    else:
        whole = text == _text(sealed({"files": files}))
    if not whole:
        raise ValueError(f"{path} is damaged")
    return {name: str(digest) for name, digest in files.items()}
