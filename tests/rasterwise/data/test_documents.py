"""Interleaved documents: the same from JSON lines and parquet files, and every fault named with its line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from rasterwise.data.documents import StoredDocument, open_stored, read_documents
from rasterwise.errors import InputError

CONTENT: list[list[dict[str, object]]] = [
    [
        {"type": "text", "text": "猫: "},
        {"type": "image", "image": "a.png"},
        {"type": "image", "image": "a.png"},
    ],
    [{"type": "image", "image": "a.png"}],
    [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
]


def png(level: int = 7) -> bytes:
    file = io.BytesIO()
    Image.new("L", (3, 2), level).save(file, "PNG")
    return file.getvalue()


def write_lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (path.parent / "a.png").write_bytes(png())
    return path


def write_parquet(path: Path, contents: list[list[dict[str, object]]]) -> Path:
    """A struct of all keys, as parquet files hold it: those that a part lacks are null."""
    pyarrow.parquet.write_table(pyarrow.table({"content": contents}), path)
    (path.parent / "a.png").write_bytes(png())
    return path


def shown(document: StoredDocument) -> list[object]:
    return [
        part if isinstance(part, str) else list(open_stored(part, document.where).getdata())
        for part in document.content
    ]


EXPECTED = [["猫: ", [7] * 6, [7] * 6], [[7] * 6], ["a", "b"]]


def test_json_lines(tmp_path: Path) -> None:
    """Texts and images in any order and number; empty lines and other keys of a row count for nothing."""
    path = write_lines(tmp_path / "d.jsonl", [{"content": content, "id": 1} for content in CONTENT])
    path.write_text(path.read_text() + "\n")
    documents = list(read_documents(path))
    assert [shown(document) for document in documents] == EXPECTED
    assert [document.where for document in documents] == [f"{path}:{line}" for line in (1, 2, 3)]
    assert documents[2].texts == ("a", "b")


def test_parquet_with_paths_bytes_and_the_hub_s_mapping(tmp_path: Path) -> None:
    """The three ways to store an image read alike."""
    as_bytes = [[{**part, "image": png()} if "image" in part else part for part in one] for one in CONTENT]
    as_mapping = [
        [{**part, "image": {"bytes": png(), "path": None}} if "image" in part else part for part in one]
        for one in CONTENT
    ]
    for name, contents in (("paths", CONTENT), ("bytes", as_bytes), ("mapping", as_mapping)):
        path = write_parquet(tmp_path / f"{name}.parquet", contents)
        documents = list(read_documents(path))
        assert [shown(document) for document in documents] == EXPECTED
        assert documents[1].where == f"{path} row 1"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "has no content; it has text"),
        ({"content": "x"}, "content is a str, expected a list"),
        ({"content": []}, "content is empty"),
        ({"content": None}, "content is a NoneType"),
        ({"content": ["x"]}, r"content\[0\] is a str, expected an object"),
        ({"content": [{"text": "x"}]}, r"content\[0\] has type None"),
        (
            {"content": [{"type": "video", "video": "x"}]},
            r"content\[0\] has type 'video', expected 'text' or 'image'",
        ),
        ({"content": [{"type": "text"}]}, r"content\[0\] of type 'text' has nothing"),
        ({"content": [{"type": "text", "text": 3}]}, "a text that is a int"),
        ({"content": [{"type": "text", "text": "x", "image": "a.png"}]}, "expected 'text' alone"),
        ({"content": [{"type": "image", "image": 3}]}, "an image that is a int"),
        (
            {"content": [{"type": "text", "text": "x"}, {"type": "image", "image": "z.png"}]},
            r"\[1\]: image 'z.png' does",
        ),
    ],
)
def test_a_wrong_document_is_named(tmp_path: Path, row: object, message: str) -> None:
    """By file and line, and by the part of its content."""
    path = write_lines(tmp_path / "d.jsonl", [{"content": CONTENT[0]}, row])
    with pytest.raises(InputError, match=f"d.jsonl:2: .*{message}|d.jsonl:2: {message}"):
        list(read_documents(path))


def test_files_that_hold_no_documents(tmp_path: Path) -> None:
    """Absent, of another kind, cut short, or of other columns."""
    with pytest.raises(InputError, match="does not exist"):
        list(read_documents(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match=r"expected \.jsonl or \.parquet"):
        list(read_documents(tmp_path / "d.csv"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="has no column content; it has text"):
        list(read_documents(tmp_path / "t.parquet"))
    whole = write_parquet(tmp_path / "d.parquet", CONTENT).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="no whole parquet file"):
        list(read_documents(tmp_path / "cut.parquet"))
    with pytest.raises(InputError, match="no whole parquet file"):
        list(read_documents(tmp_path / "absent.parquet"))


def test_images_that_do_not_decode_are_named(tmp_path: Path) -> None:
    """With the document that they are in."""
    (tmp_path / "b.png").write_bytes(b"no image")
    for stored in (tmp_path / "b.png", b"no image"):
        with pytest.raises(InputError, match=r"d\.jsonl:4: .*does not decode"):
            open_stored(stored, "d.jsonl:4")
    pixels = torch.arange(6, dtype=torch.uint8).view(1, 2, 3)
    assert list(open_stored(pixels, "").getdata()) == list(range(6))
