"""Every command that writes refuses what it could not write, in one line, before it opens a model or an image."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from pipeline.cli import COMMANDS
from pipeline.cli import main as rasterwise
from tests.conftest import Chain

ABSENT = "./absent"
IMAGE, IMAGES, FILE, FOLDER = "image", "images", "file", "folder"
ENDINGS = {IMAGE: ".png", IMAGES: ".png", FILE: ".rw", FOLDER: ""}
WRITING: dict[str, tuple[str, list[str]]] = {
    "sample": (IMAGES, ["--pipeline", ABSENT]),
    "reconstruct": (IMAGE, ["--source", ABSENT, "--images", "absent.png"]),
    "complete": (IMAGE, ["--pipeline", ABSENT, "--images", "absent.png"]),
    "compress": (FILE, ["--pipeline", ABSENT, "--images", "absent.png"]),
    "decompress": (FOLDER, ["--pipeline", ABSENT, "--input", "absent.rw"]),
    "generate": (FOLDER, ["--pipeline", ABSENT, "--document", "absent.json"]),
    "plot": (IMAGE, [ABSENT]),
    "probe": (IMAGE, ["--source", ABSENT]),
    "import": (FOLDER, ["--source", ABSENT]),
    "encode": (FOLDER, ["--tokenizer", ABSENT]),
    "quickstart": (FOLDER, []),
    "quickstart documents": (FOLDER, []),
    "train vqvae": (FOLDER, ["--dataset", ABSENT]),
    "train prior": (FOLDER, ["--codes", ABSENT]),
    "train pixel": (FOLDER, ["--dataset", ABSENT]),
    "compare resolution": (FOLDER, ["--dataset", ABSENT]),
    "compare size": (FOLDER, ["--dataset", ABSENT]),
    "compare family": (FOLDER, ["--dataset", ABSENT]),
    "compare tokenizer": (FOLDER, ["--dataset", ABSENT]),
}
"""What each writes, and arguments that name things that are not there."""


def refused(capsys: pytest.CaptureFixture[str], name: str, output: Path) -> str:
    """Run a command that must end with status 2 and one line about its output; returns the line."""
    capsys.readouterr()
    assert rasterwise([*name.split(), *WRITING[name][1], "--output", str(output)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"rasterwise: output {output} ") or line.startswith(
        f"rasterwise: output folder {output} "
    )
    assert captured.out == ""
    return line


def named(name: str, path: Path) -> Path:
    """With the ending that the command expects."""
    return path.with_name(f"{path.name}{ENDINGS[WRITING[name][0]]}")


def test_every_command_that_writes_is_here() -> None:
    assert set(COMMANDS) - set(WRITING) == {"caption", "evaluate", "verify"}


@pytest.mark.parametrize("name", WRITING)
def test_places_where_nothing_can_be_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below a file, by a link to nothing, with a name that is too long: nothing is made or changed."""
    (tmp_path / "note.txt").write_text("mine")
    for link in ("link", "link.png", "link.rw"):
        (tmp_path / link).symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.rglob("*"))
    assert "note.txt is a file" in refused(capsys, name, named(name, tmp_path / "note.txt" / "x"))
    assert "which is not there" in refused(capsys, name, named(name, tmp_path / "link"))
    assert "File name too long" in refused(capsys, name, named(name, tmp_path / ("x" * 250)))
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "note.txt").read_text() == "mine"


@pytest.mark.parametrize("name", WRITING)
def test_what_is_there_is_of_another_kind(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder where an image should be, and a file where a folder should be; an ending that is not written."""
    kind = WRITING[name][0]
    if kind == FILE:
        (tmp_path / "x.rw").mkdir()
        assert "is there already" in refused(capsys, name, tmp_path / "x.rw")
        assert "is no .rw name" in refused(capsys, name, tmp_path / "x.zip")
        return
    if kind != FOLDER:
        (tmp_path / "x.png").mkdir()
        assert "is a folder, expected a file" in refused(capsys, name, tmp_path / "x.png")
        for ending in ("jpg", "pdf"):
            assert "is no .png name" in refused(capsys, name, tmp_path / f"x.{ending}")
    if kind != IMAGE:
        (tmp_path / "x").write_text("mine")
        assert "is a file, expected a folder" in refused(capsys, name, tmp_path / "x")
        assert (tmp_path / "x").read_text() == "mine"


@pytest.mark.parametrize("name", WRITING)
def test_a_read_only_place(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its rights, or for root, whom they do not stop, by its file system."""
    place = tmp_path / "place"
    place.mkdir(mode=0o500)
    mounted = os.access(place, os.W_OK)
    if (
        mounted
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], capture_output=True
        ).returncode
    ):
        pytest.skip("this user may write everywhere, and may not mount a read-only file system")
    try:
        assert "cannot be written" in refused(capsys, name, named(name, place / "new" / "x"))
        assert "cannot be written" in refused(capsys, name, named(name, place / "x"))
    finally:
        if mounted:
            subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize(
    "name", ["sample", "sample to a folder", "reconstruct", "complete", "plot", "encode"]
)
def test_a_disk_that_fills_up(
    name: str, chain: Chain, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line; of images, none and no part of one is left."""
    Image.new("L", (8, 8)).save(tmp_path / "mine.png")
    words, output = {
        "sample": (["sample", "--pipeline", chain.prior, "--n", "9"], "x.png"),
        "sample to a folder": (["sample", "--pipeline", chain.prior, "--n", "9"], "x"),
        "reconstruct": (["reconstruct", "--source", chain.vqvae, "--images", tmp_path / "mine.png"], "x.png"),
        "complete": (["complete", "--pipeline", chain.prior, "--images", tmp_path / "mine.png"], "x.png"),
        "plot": (["plot", chain.vqvae], "x.png"),
        "encode": (["encode", "--tokenizer", chain.vqvae], "x"),
    }[name]
    room = 3 * 4096 if name == "sample to a folder" else 0
    (small_disk / "filler").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - room))
    assert rasterwise([*map(str, words), "--output", str(small_disk / output)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rasterwise: ")]
    assert len(lines) == 1
    assert "the disk is full" in lines[0]
    if name != "encode":
        assert [path.name for path in small_disk.iterdir()] == ["filler"]
    (small_disk / "filler").unlink()
    assert rasterwise([*map(str, words), "--output", str(small_disk / output)]) == 0


def test_an_input_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The image that is to be completed or reconstructed."""
    Image.new("L", (8, 8)).save(tmp_path / "mine.png")
    before = (tmp_path / "mine.png").read_bytes()
    for command, source in (("complete", "--pipeline"), ("reconstruct", "--source")):
        words = [command, source, ABSENT, "--images", str(tmp_path / "mine.png")]
        assert rasterwise([*words, "--output", str(tmp_path / "mine.png")]) == 2
        assert "is one of the images that are read" in capsys.readouterr().err
    assert (tmp_path / "mine.png").read_bytes() == before
