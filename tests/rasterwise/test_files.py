"""Files that are whole or absent, also on a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from rasterwise.errors import InputError
from rasterwise.files import from_json, load_tensors, new_folder, read_json, save_tensors, write_json
from rasterwise.grid import Grid
from rasterwise.tokenizer import PixelTokenizer
from stage1_vqvae import VQVAE, VQVAEConfig


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs rights that this user has not")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    """Until the block ends the name is not taken; then it holds everything, and what was there is replaced."""
    folder = tmp_path / "made"
    for text in ("one", "two"):
        with new_folder(folder) as pending:
            (pending / "file").write_text(text)
            assert not folder.exists() or (folder / "file").read_text() == "one"
        assert (folder / "file").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """An error half-way removes the pending folder and keeps the old one."""
    folder = tmp_path / "made"
    with new_folder(folder) as pending:
        (pending / "file").write_text("old")

    def break_off() -> None:
        with new_folder(folder) as pending:
            (pending / "file").write_text("new")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        break_off()
    assert (folder / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_full_disk_keeps_the_model_that_was_there(small_disk: Path) -> None:
    """Saving a model that does not fit raises ENOSPC, and the one before opens as it did."""
    PixelTokenizer().save_pretrained(small_disk / "model")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        VQVAE(VQVAEConfig(width=128)).save_pretrained(small_disk / "model")
    assert caught.value.errno == errno.ENOSPC
    PixelTokenizer.from_pretrained(small_disk / "model")
    assert os.listdir(small_disk) == ["model"]


def test_a_full_disk_keeps_the_json_that_was_there(small_disk: Path) -> None:
    """The same for a JSON file."""
    write_json(small_disk / "report.json", {"a": 1})
    with pytest.raises(OSError):  # noqa: PT011
        write_json(small_disk / "report.json", {"a": "x" * 2_000_000})
    assert read_json(small_disk / "report.json") == {"a": 1}
    assert os.listdir(small_disk) == ["report.json"]


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    """Absent, cut short, or no object: each named."""
    path = tmp_path / "config.json"
    with pytest.raises(InputError, match=r"holds no config\.json"):
        read_json(path)
    path.write_text('{"a": 1')
    with pytest.raises(InputError, match="not whole JSON"):
        read_json(path)
    path.write_text("[1]")
    with pytest.raises(InputError, match="holds a list"):
        read_json(path)


@dataclass(frozen=True)
class Outer:
    grid: Grid
    names: tuple[str, ...]


def test_dataclasses_come_back_from_json() -> None:
    """Nested ones and tuples too; a field missing, unknown or of another type is named."""
    content = {"grid": {"channels": 1, "height": 2, "width": 3, "levels": 4}, "names": ["a", "b"]}
    assert from_json(Outer, content, "x.json") == Outer(Grid(1, 2, 3, 4), ("a", "b"))
    for broken, name in (
        ({"names": []}, "grid"),
        ({**content, "colour": 1}, "colour"),
        ({**content, "grid": {**content["grid"], "width": "wide"}}, "width"),  # type: ignore[dict-item]
        ({**content, "grid": {**content["grid"], "width": 0}}, "width"),  # type: ignore[dict-item]
    ):
        with pytest.raises(InputError, match=name):
            from_json(Outer, broken, "x.json")


def test_tensors(tmp_path: Path) -> None:
    """They come back bit by bit; a file that is absent or cut short is named."""
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5)}
    save_tensors(tensors, path)
    loaded = load_tensors(path)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="cut short"):
        load_tensors(path)
    with pytest.raises(InputError, match="holds no"):
        load_tensors(tmp_path / "absent.safetensors")
