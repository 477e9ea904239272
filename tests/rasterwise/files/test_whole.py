"""Files that are whole or absent, also on a full disk."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rasterwise.files import (
    clear_leftovers,
    copied_folder,
    new_file,
    new_folder,
    read_json,
    recover,
    remove_folder,
    write_json,
)
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
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


def test_a_file_appears_whole(tmp_path: Path) -> None:
    """As a folder does: the name is taken when the block has ended, and kept by the old file when it fails."""
    path = tmp_path / "below" / "made"
    for text in ("one", "two"):
        with new_file(path) as pending:
            pending.write_text(text)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == text

    def break_off() -> None:
        with new_file(path) as pending:
            pending.write_text("half")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        break_off()
    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["made"]


def killed(at: int, work: Callable[[], object]) -> bool:
    """Do the work in another process, killed before its ``at``-th file operation; False if it had not so many."""
    process = os.fork()
    if process == 0:
        counter = itertools.count()

        def die(event: str, _: object) -> None:
            if event.startswith(("os.", "open", "shutil.")) and next(counter) == at:
                os._exit(9)

        try:
            sys.addaudithook(die)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_at_any_point_leaves_a_whole_model(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one or the new one; where names can be exchanged it is there at every moment, else once opened."""
    if not exchange:
        monkeypatch.setattr("rasterwise.files.whole._exchange", lambda *_: False)
    old, new = (PixelTokenizer(PixelTokenizerConfig(levels=levels)) for levels in (2, 4))
    found, missing = [], 0
    for at in itertools.count():
        folder = tmp_path / str(at) / "model"
        old.save_pretrained(folder)
        was_killed = killed(at, lambda folder=folder: new.save_pretrained(folder))  # type: ignore[misc]
        missing += not folder.exists()
        assert folder.exists() or not exchange
        found.append(PixelTokenizer.from_pretrained(folder).config.levels)
        clear_leftovers(folder.parent)
        assert os.listdir(folder.parent) == ["model"]
        assert PixelTokenizer.from_pretrained(new.save_pretrained(folder)).config.levels == 4
        if not was_killed:
            break
    assert len(found) > 20
    assert found == sorted(found)  # first the old one, then the new one
    assert set(found) == {2, 4}
    assert bool(missing) != exchange


def test_a_kill_at_any_point_of_deleting_leaves_nothing_half(tmp_path: Path) -> None:
    """The folder is there whole, or its name is free."""
    for at in itertools.count():
        folder = tmp_path / str(at) / "model"
        PixelTokenizer().save_pretrained(folder)
        was_killed = killed(at, lambda folder=folder: remove_folder(folder))  # type: ignore[misc]
        if folder.exists():
            PixelTokenizer.from_pretrained(folder)
        clear_leftovers(folder.parent)
        assert os.listdir(folder.parent) in ([], ["model"])
        if not was_killed:
            break
    assert at > 3
    assert not folder.exists()


def test_a_writer_whose_old_folder_is_put_back_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader recovers between the two renames of a writer that lives: the new one still takes the name."""
    monkeypatch.setattr("rasterwise.files.whole._exchange", lambda *_: False)
    folder, rename, renames = tmp_path / "model", Path.rename, []
    PixelTokenizer(PixelTokenizerConfig(levels=2)).save_pretrained(folder)

    def renamed(path: Path, target: Path) -> Path:
        renames.append(target)
        done = rename(path, target)
        if len(renames) == 1:
            recover(folder)
        return done

    monkeypatch.setattr(Path, "rename", renamed)
    PixelTokenizer(PixelTokenizerConfig(levels=4)).save_pretrained(folder)
    assert len(renames) > 3
    assert PixelTokenizer.from_pretrained(folder).config.levels == 4
    assert os.listdir(tmp_path) == ["model"]


def test_a_copy_is_made_once(tmp_path: Path) -> None:
    """A folder that is there already is left."""
    PixelTokenizer(PixelTokenizerConfig(levels=2)).save_pretrained(tmp_path / "two")
    PixelTokenizer(PixelTokenizerConfig(levels=4)).save_pretrained(tmp_path / "four")
    for source in ("two", "four"):
        copied_folder(tmp_path / source, tmp_path / "copy")
    assert PixelTokenizer.from_pretrained(tmp_path / "copy").config.levels == 2


def test_what_is_not_ours_is_no_leftover(tmp_path: Path) -> None:
    """Hidden files of other programs stay."""
    for name in (".gitignore", ".model.pending", ".model.pending-x", "model.pending-12"):
        (tmp_path / name).touch()
    clear_leftovers(tmp_path)
    assert len(os.listdir(tmp_path)) == 4


def test_a_full_disk_keeps_the_model_that_was_there(small_disk: Path) -> None:
    """Saving a model that does not fit raises ENOSPC, and the one before opens as it did."""
    PixelTokenizer().save_pretrained(small_disk / "model")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        VQVAE(VQVAEConfig()).save_pretrained(small_disk / "model")
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
