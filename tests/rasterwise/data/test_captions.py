"""Captions: found in folders and columns, drawn among, and named where they are missing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rasterwise.data.captions import caption_name, captioned_folder, captions_in, chosen_caption
from rasterwise.errors import InputError


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(folder / name)


def write_lines(path: Path, *rows: object) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_every_caption_is_drawn_once_a_cycle() -> None:
    """In any k epochs from a multiple of k each of an image's k captions comes once; the seed decides the order."""
    captions = ["a", "b", "c"]
    for index in range(20):
        for cycle in range(5):
            epochs = range(3 * cycle, 3 * cycle + 3)
            drawn = {chosen_caption(captions, seed=1, epoch=epoch, index=index) for epoch in epochs}
            assert drawn == set(captions)
    orders = {
        "".join(chosen_caption(captions, seed=seed, epoch=epoch, index=0) for epoch in range(3))
        for seed in range(50)
    }
    assert len(orders) == 6
    first = Counter(chosen_caption(captions, seed=0, epoch=0, index=index) for index in range(3000))
    assert all(900 < count < 1100 for count in first.values())


def test_a_column_holds_one_caption_or_several() -> None:
    """Strings, lists and arrays of strings; the order is kept."""
    assert captions_in("a cat", "row 0") == ("a cat",)
    assert captions_in(["a cat", "a pet"], "row 0") == ("a cat", "a pet")
    assert captions_in(np.array(["a", "b"], dtype=object), "row 0") == ("a", "b")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "row 7: captions are a NoneType"),
        ([], "row 7: has no caption"),
        (["a", ""], "row 7: a caption is empty"),
        (["a", 3], "row 7: a caption is a int"),
        (b"a", "row 7: captions are a bytes"),
    ],
)
def test_what_is_no_caption_is_named(value: object, message: str) -> None:
    """With its row."""
    with pytest.raises(InputError, match=message):
        captions_in(value, "row 7")


def test_the_column_of_captions_is_found_by_its_name() -> None:
    """In a fixed order of preference, or as chosen."""
    assert caption_name(["image", "text", "caption"], None, "x") == "caption"
    assert caption_name(["image", "text", "caption"], "text", "x") == "text"
    with pytest.raises(InputError, match=r"x: has no captions under 'alt'; it has image, text"):
        caption_name(["image", "text"], "alt", "x")
    with pytest.raises(InputError, match=r"under one of caption, captions"):
        caption_name(["image"], None, "x")


def test_metadata_lines_of_one_image_add_up(tmp_path: Path) -> None:
    """A caption, a list of captions and further lines; files by name, also in folders below."""
    write_images(tmp_path, "b.png", "sub/a.jpg", "c.png")
    write_lines(
        tmp_path / "metadata.jsonl",
        {"file_name": "b.png", "text": "eins"},
        {"file_name": "sub/a.jpg", "text": ["zwei", "drei"]},
        {"file_name": "b.png", "text": "猫"},
        {"file_name": "c.png", "text": "vier"},
    )
    found = captioned_folder(tmp_path)
    assert [one.image.name for one in found] == ["b.png", "c.png", "a.jpg"]
    assert [one.captions for one in found] == [("eins", "猫"), ("vier",), ("zwei", "drei")]
    assert found[0].where == f"{tmp_path / 'metadata.jsonl'}:3"


def test_text_files_stand_beside_images(tmp_path: Path) -> None:
    """One caption a line; empty lines and other text files count for nothing."""
    write_images(tmp_path, "a.png", "b.PNG")
    (tmp_path / "a.txt").write_text("a cat\n\n  a pet \n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("a dog", encoding="utf-8")
    (tmp_path / "README.txt").write_text("by hand", encoding="utf-8")
    assert [one.captions for one in captioned_folder(tmp_path)] == [("a cat", "a pet"), ("a dog",)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, ":2: has no file_name"),
        ({"file_name": "z.png", "text": "x"}, ":2: image 'z.png' does not exist"),
        ({"file_name": "a.png"}, ":2: has no captions under one of"),
        ({"file_name": "a.png", "text": ""}, ":2: a caption is empty"),
        ({"file_name": "metadata.jsonl", "text": "x"}, ":2: 'metadata.jsonl' is no image"),
        (["a.png"], ":2: is a list, expected a JSON object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: object, message: str) -> None:
    """By file and number."""
    write_images(tmp_path, "a.png")
    write_lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "text": "x"}, row)
    with pytest.raises(InputError, match=f"metadata.jsonl{message}"):
        captioned_folder(tmp_path)


def test_images_without_captions_are_named(tmp_path: Path) -> None:
    """No text file, no line, a line that is no JSON, and no images at all."""
    with pytest.raises(InputError, match="has no images"):
        captioned_folder(tmp_path)
    write_images(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match=r"a\.png has no caption: expected a\.txt"):
        captioned_folder(tmp_path)
    write_lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "text": "x"})
    with pytest.raises(InputError, match=r"b\.png is in no metadata\.jsonl"):
        captioned_folder(tmp_path)
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(InputError, match=r"metadata\.jsonl:2: is not whole JSON"):
        captioned_folder(tmp_path)
