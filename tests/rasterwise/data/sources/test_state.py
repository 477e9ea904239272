"""What changed in a dataset is named, and an output is kept out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasterwise.data.sources.state import Contents, FileState, Origin
from rasterwise.errors import InputError

OLD = {"a.png": FileState(5, 100), "b.png": FileState(6, 100), "c.png": FileState(7, 100)}


def changes(new: dict[str, FileState], old: dict[str, FileState] | None = None) -> str:
    return Origin("/new", files=new).changes(Origin("/old", files=OLD if old is None else old).as_json())


def test_what_changed_is_named() -> None:
    """Added, gone and changed files; the place of the folder is no change."""
    assert changes(OLD) == ""
    assert changes({**OLD, "d.png": FileState(1, 1)}) == "added d.png"
    assert changes({"a.png": OLD["a.png"], "b.png": OLD["b.png"]}) == "gone c.png"
    assert changes({**OLD, "a.png": FileState(5, 101)}).startswith("changed a.png (in size or time")
    many = {f"{n}.png": FileState(1, 1) for n in range(9)}
    assert changes({**OLD, **many}) == "added 0.png, 1.png, 2.png and 6 more"


def test_contents_tell_more_than_times() -> None:
    """Where both were read, a touched file is the same, and one of the same size and time may be another."""
    old = {"a.png": FileState(5, 100, "aa")}
    assert changes({"a.png": FileState(5, 999, "aa")}, old) == ""
    assert changes({"a.png": FileState(5, 100, "bb")}, old) == "changed a.png"
    assert changes({"a.png": FileState(5, 100)}, old) == ""


def test_datasets_without_files_are_told_apart_by_name() -> None:
    """The built-in digits are not a dataset on the Hub."""
    before = Origin("digits").as_json()
    assert Origin("digits").changes(before) == ""
    assert "digits" in Origin("hf://datasets/a/b").changes(before)


def test_what_is_no_origin_is_refused() -> None:
    """Whatever the file holds."""
    for content in (
        {},
        {"files": 3},
        {"dataset": "x", "files": {"a": 3}},
        {"dataset": "x", "files": {"a": "x"}},
    ):
        with pytest.raises(ValueError, match="names no files"):
            Origin("x").changes(content)


def test_digests_are_of_contents_and_labels() -> None:
    """In the order of reading; the name of the folder plays no part."""

    def files(root: str, *rows: tuple[bytes, object]) -> dict[str, FileState]:
        contents = Contents()
        for content, label in rows:
            contents.add(f"{root}/x.parquet", content, label)
        known = {f"{root}/x.parquet": FileState(1, 1)}
        return dict(Origin.of(root, (Path(root),), known, contents).files)

    found = files("/a", (b"one", 1), (b"two", 2))
    assert list(found) == ["x.parquet"]
    assert found["x.parquet"].content
    assert found == files("/b", (b"one", 1), (b"two", 2))
    for other in (((b"two", 2), (b"one", 1)), ((b"one", 1), (b"two", 3)), ((b"onetwo", 1),), ((b"one", 1),)):
        assert found != files("/a", *other)


def test_an_output_in_or_around_the_dataset_is_refused(tmp_path: Path) -> None:
    """Under whatever name it is given; beside the dataset it is not."""
    dataset, linked = tmp_path / "set", tmp_path / "linked"
    dataset.mkdir()
    (tmp_path / "alias").symlink_to(dataset)
    origin = Origin(str(dataset), (dataset, linked))
    for output in (
        dataset,
        dataset / "run",
        dataset / ".." / "set" / "run",
        tmp_path / "alias" / "run",
        linked / "x",
    ):
        with pytest.raises(InputError, match="lies in the folder of the dataset"):
            origin.refuse_output(output)
    with pytest.raises(InputError, match="--force deletes"):
        origin.refuse_output(tmp_path)
    origin.refuse_output(tmp_path / "set-run")
    Origin("digits").refuse_output(tmp_path)
