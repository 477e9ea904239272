"""What can be written is claimed, and anything else is refused before there is work to lose."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rasterwise.errors import InputError
from rasterwise.outputs import UNFINISHED, claim_folder, claim_image, claim_images, save_images
from tests.rasterwise.files.test_whole import killed

IMAGES = torch.randint(256, (3, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CLAIMS: dict[str, Callable[[Path], Path]] = {
    "image.png": claim_image,
    "images.png": claim_images,
    "images": claim_images,
    "folder": claim_folder,
}


@pytest.mark.parametrize("name", CLAIMS)
def test_new_names_are_claimed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here or in folders that are not there yet; nothing is made for it."""
    for path in (tmp_path / name, tmp_path / "new" / "folders" / name):
        assert CLAIMS[name](path) == path
    monkeypatch.chdir(tmp_path)
    assert CLAIMS[name](Path(name)) == tmp_path / name
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CLAIMS)
def test_places_where_nothing_can_be_written(name: str, tmp_path: Path) -> None:
    """One line that names the output and the reason."""
    (tmp_path / "note.txt").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / f"link-{name}").symlink_to(tmp_path / "gone.png")
    (tmp_path / f"loop-{name}").symlink_to(tmp_path / f"loop-{name}")
    suffix = Path(name).suffix
    for path, said in (
        (tmp_path / "note.txt" / name, f"{tmp_path / 'note.txt'} is a file"),
        (tmp_path / "note.txt" / "deep" / name, f"{tmp_path / 'note.txt'} is a file"),
        (tmp_path / "nowhere" / name, f"links to {tmp_path / 'gone'}, which is not there"),
        (tmp_path / f"link-{name}", f"links to {tmp_path / 'gone.png'}, which is not there"),
        (tmp_path / f"loop-{name}", "which is not there"),
        (tmp_path / ("x" * 300 + suffix), "File name too long"),
        (tmp_path / ("x" * 250 + suffix), "File name too long"),  # while it is written, it has a longer name
        (tmp_path / ("é" * 130 + suffix), "File name too long"),
        (tmp_path / ("x" * 300) / name, "File name too long"),
        (tmp_path.joinpath(*["x" * 100] * 60) / name, "File name too long"),
        (Path("/proc") / name, "cannot be written"),
    ):
        with pytest.raises(InputError) as caught:
            CLAIMS[name](path)
        assert said in str(caught.value)
        assert str(path) in str(caught.value)
        assert "name another with --output" in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {
        "note.txt",
        "nowhere",
        f"link-{name}",
        f"loop-{name}",
    }


def test_a_folder_where_a_file_should_be_and_a_file_where_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("mine")
    for claim in (claim_image, claim_images):
        with pytest.raises(InputError, match="is a folder, expected a file"):
            claim(tmp_path / "folder.png")
    for claim in (claim_folder, claim_images):
        with pytest.raises(InputError, match="is a file, expected a folder"):
            claim(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "webp", "gif", "tiff", "pdf"])
def test_endings_that_are_not_written(ending: str, tmp_path: Path) -> None:
    """They are no images here, and no folder either; a version's number is."""
    for claim in (claim_image, claim_images):
        with pytest.raises(InputError, match=r"is no \.png name"):
            claim(tmp_path / f"x.{ending}")
    with pytest.raises(InputError, match=r"is no \.png name"):
        claim_image(tmp_path / "samples")
    assert claim_images(tmp_path / "samples-1.5") == tmp_path / "samples-1.5"
    assert claim_image(tmp_path / "x.PNG") == tmp_path / "x.PNG"


def test_links_are_followed(tmp_path: Path) -> None:
    """What is written goes where they lead, and they stay."""
    (tmp_path / "here.png").write_text("old")
    (tmp_path / "link.png").symlink_to(tmp_path / "here.png")
    assert claim_image(tmp_path / "link.png") == tmp_path / "here.png"
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    save_images(IMAGES, claim_images(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert len(list((tmp_path / "images").iterdir())) == 3


def test_an_input_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way it is written; another image that is there will be."""
    (tmp_path / "mine.png").write_text("mine")
    (tmp_path / "link.png").symlink_to("mine.png")
    monkeypatch.chdir(tmp_path)
    for output in ("mine.png", "./mine.png", "link.png"):
        with pytest.raises(InputError, match="is one of the images that are read"):
            claim_image(Path(output), inputs=[tmp_path / "mine.png"])
    assert claim_image(Path("mine.png"), inputs=[tmp_path / "other.png"]) == tmp_path / "mine.png"


def test_a_folder_that_holds_something_is_taken(tmp_path: Path) -> None:
    """It could be anybody's; an empty one is not."""
    assert claim_images(tmp_path) == tmp_path
    (tmp_path / "00000.png").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        claim_images(tmp_path)


def test_leftovers_of_a_killed_writing_are_removed(tmp_path: Path) -> None:
    """Those of the same name alone."""
    for name in (".x.png.pending-123", ".y.png.pending-123"):
        (tmp_path / name).write_text("half")
    claim_image(tmp_path / "x.png")
    assert [path.name for path in tmp_path.iterdir()] == [".y.png.pending-123"]


@pytest.mark.parametrize("new", [True, False])
def test_images_are_all_written_or_none(new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing fails, what was written is removed."""
    folder = tmp_path / "images"
    if not new:
        folder.mkdir()
    count = itertools.count()

    def to_pil(image: torch.Tensor) -> None:
        if next(count) == 2:
            raise KeyboardInterrupt
        return real(image)

    from rasterwise.images import to_pil as real

    with monkeypatch.context() as patch:
        patch.setattr("rasterwise.images.to_pil", to_pil)
        with pytest.raises(KeyboardInterrupt):
            save_images(IMAGES, folder)
    assert folder.exists() != new
    assert not list(tmp_path.rglob("*.*"))
    save_images(IMAGES, claim_images(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["00000.png", "00001.png", "00002.png"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")
def test_a_folder_whose_writing_was_killed_is_written_again(tmp_path: Path) -> None:
    """Killed before any file operation, with fewer images the second time: all of these are there, and no other."""
    expected = None
    for at in itertools.count():
        folder = tmp_path / f"{at}"
        died = killed(at, lambda folder=folder: save_images(IMAGES, folder))  # type: ignore[misc]
        if not died:
            break
        if len(list(folder.glob("*.png"))) < 3 or (folder / UNFINISHED).exists():
            save_images(IMAGES[:2], claim_images(folder))
            found = {path.name: path.read_bytes() for path in folder.iterdir()}
            assert sorted(found) == ["00000.png", "00001.png"], at
            assert expected in (None, found)
            expected = found
    assert at > 10
    assert expected is not None
