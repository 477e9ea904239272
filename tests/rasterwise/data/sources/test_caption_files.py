"""Captions in a folder of images: every image has one, and every fault is named with its file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from rasterwise.data.sources.caption_files import FolderCaptions, captions_of_folder
from rasterwise.data.sources.folders import listing_of
from rasterwise.errors import InputError


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(folder / name)


def write_lines(path: Path, *rows: object) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def captions(folder: Path, key: str | None = None) -> FolderCaptions:
    return captions_of_folder(listing_of(folder), key)


def test_metadata_lines_of_one_image_add_up(tmp_path: Path) -> None:
    """A caption, a list of captions and further lines; paths start from the file that says them."""
    write_images(tmp_path, "b.png", "sub/a.jpg", "c.png", "low/d.png")
    write_lines(
        tmp_path / "metadata.jsonl",
        {"file_name": "b.png", "text": "eins"},
        {"file_name": "sub/a.jpg", "text": ["zwei", "drei"]},
        {"file_name": "b.png", "text": "猫"},
        {"file_name": "./c.png", "text": "vier"},
    )
    write_lines(tmp_path / "low/metadata.jsonl", {"file_name": "d.png", "caption": "fünf"})
    found = captions(tmp_path)
    assert found.by_image == {
        "b.png": ("eins", "猫"),
        "sub/a.jpg": ("zwei", "drei"),
        "c.png": ("vier",),
        "low/d.png": ("fünf",),
    }
    assert set(found.files) == {"metadata.jsonl", "low/metadata.jsonl"}


def test_a_key_is_chosen_by_name(tmp_path: Path) -> None:
    """It becomes the column."""
    write_images(tmp_path, "a.png")
    write_lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "text": "long", "alt": "short"})
    assert captions(tmp_path, "alt").by_image == {"a.png": ("short",)}
    assert (captions(tmp_path, "alt").column, captions(tmp_path).column) == ("alt", "caption")


def test_text_files_stand_beside_images(tmp_path: Path) -> None:
    """One caption a line; empty lines and other text files count for nothing."""
    write_images(tmp_path, "a.png", "b.v2.PNG")
    (tmp_path / "a.txt").write_text("a cat\n\n  a pet \n", encoding="utf-8")
    (tmp_path / "b.v2.txt").write_text("a dog", encoding="utf-8")
    (tmp_path / "README.txt").write_text("by hand", encoding="utf-8")
    found = captions(tmp_path)
    assert found.by_image == {"a.png": ("a cat", "a pet"), "b.v2.PNG": ("a dog",)}
    assert set(found.files) == {"a.txt", "b.v2.txt"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, ":2: has no file_name"),
        ({"file_name": "z.png", "text": "x"}, ":2: 'z.png' is no image in"),
        ({"file_name": "metadata.jsonl", "text": "x"}, ":2: 'metadata.jsonl' is no image"),
        ({"file_name": "../a.png", "text": "x"}, ":2: '../a.png' is no image"),
        ({"file_name": "a.png"}, ":2: has no captions under one of"),
        ({"file_name": "a.png", "text": ""}, ":2: has an empty caption"),
        ({"file_name": "a.png", "text": None}, ":2: has no caption"),
        (["a.png"], ":2: is a list, expected a JSON object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: object, message: str) -> None:
    """By file and number."""
    write_images(tmp_path, "a.png")
    write_lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "text": "x"}, row)
    with pytest.raises(InputError, match=f"metadata.jsonl{message}"):
        captions(tmp_path)


def test_images_without_captions_are_named(tmp_path: Path) -> None:
    """No text file, an empty one, one that is no text, no line, and a line that is no JSON."""
    write_images(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match=r"a\.png has no caption: expected a\.txt"):
        captions(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\n")
    with pytest.raises(InputError, match=r"a\.txt has no caption"):
        captions(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"a\.txt cannot be read"):
        captions(tmp_path)
    write_lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "text": "x"})
    with pytest.raises(InputError, match=r"b\.png is in no metadata\.jsonl"):
        captions(tmp_path)
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(InputError, match=r"metadata\.jsonl:2: is not whole JSON"):
        captions(tmp_path)
