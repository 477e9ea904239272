"""Manifests: every changed byte of every file is found, and the file is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from rasterwise.errors import InputError
from rasterwise.files import MANIFEST_NAME, damage_of, verify_manifest, write_manifest

NAMES = ("a.bin", "below/b.bin")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "below").mkdir()
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode() * 3)
    write_manifest(tmp_path, NAMES)
    return tmp_path


@pytest.mark.parametrize("name", [*NAMES, MANIFEST_NAME])
def test_every_changed_byte_is_found_and_named(name: str, folder: Path) -> None:
    """One bit of each byte in turn, also of the manifest itself; then a byte less, and no file."""
    assert damage_of(folder, NAMES) is None
    path = folder / name
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1 << index % 8]) + whole[index + 1 :])
        assert damage_of(folder, NAMES) == f"{name} is damaged"
    path.write_bytes(whole[:-1])
    assert damage_of(folder, NAMES) == f"{name} is damaged"
    path.unlink()
    assert damage_of(folder, NAMES) == f"{name} is missing"


def test_files_that_changed_places_are_found(folder: Path) -> None:
    """Both are whole, but neither is the one that has the name."""
    a, b = (folder / name for name in NAMES)
    content = a.read_bytes(), b.read_bytes()
    b.write_bytes(content[0])
    a.write_bytes(content[1])
    assert damage_of(folder, NAMES) == "a.bin is damaged"


def test_another_folders_manifest_is_found(folder: Path) -> None:
    """One that says nothing of a file that must be there."""
    write_manifest(folder, NAMES[:1])
    assert damage_of(folder, NAMES) == f"{MANIFEST_NAME} lacks below/b.bin"


def test_a_folder_without_a_manifest_passes(folder: Path) -> None:
    """It was saved by an earlier version; with a manifest, the line says what is damaged and what to do."""
    (folder / "a.bin").write_bytes(b"changed")
    with pytest.raises(InputError, match=r"a\.bin is damaged; encode again"):
        verify_manifest(folder, NAMES, "encode again")
    (folder / MANIFEST_NAME).unlink()
    verify_manifest(folder, NAMES, "encode again")


def test_an_earlier_versions_manifest_is_read(folder: Path) -> None:
    """Its own digest is of the files' digests alone."""
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES}
    own = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST_NAME).write_text(json.dumps({"files": files, "sha256": own}))
    assert damage_of(folder, NAMES) is None
    (folder / MANIFEST_NAME).write_text(json.dumps({"files": {**files, NAMES[0]: "0"}, "sha256": own}))
    assert damage_of(folder, NAMES) == f"{MANIFEST_NAME} is damaged"
