"""Folders: every image is listed or named, and names alone say what the splits and the classes are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rasterwise.data.sources.folders import Listing, image_splits, listing_of, parquet_splits
from rasterwise.data.sources.state import FileState
from rasterwise.errors import InputError
from tests.conftest import Folders

STATE = FileState(1, 1)


def listing(*names: str, empty: tuple[str, ...] = ()) -> Listing:
    """A listing of some files; all folders above them are among its folders, and some that are empty."""
    folders = {name.rpartition("/")[0] for name in names} | set(empty)
    above = {
        "/".join(parts[:n]) for parts in (f.split("/") for f in folders) for n in range(1, len(parts) + 1)
    }
    return Listing(Path("/set"), images=dict.fromkeys(names, STATE), folders=sorted(above - {""}))


IMAGES = {
    "no folders": (["a.png", "my test.png", "train-1.png"], {"train": ["", "", ""]}),
    "classes": (["cat/a.png", "dog/b.png"], {"train": ["cat", "dog"]}),
    "a class named as a split": (["plane/a.png", "train/b.png"], {"train": ["plane", "train"]}),
    "a class named as the test split": (["other/a.png", "test/b.png"], {"train": ["other", "test"]}),
    "classes with a split's name in them": (
        ["dev-tools/a.png", "my test/b.png"],
        {"train": ["dev-tools", "my test"]},
    ),
    "classes, deeper": (
        ["cat/b.png", "cat/persian/a.png", "dog/x/y/b.png"],
        {"train": ["cat", "cat", "dog"]},
    ),
    "splits": (["test/a.png", "train/b.png"], {"test": [""], "train": [""]}),
    "splits by other names": (["Training/b.png", "val/a.png"], {"Training": [""], "val": [""]}),
    "splits of classes": (
        ["test/cat/a.png", "train/cat/b.png", "train/dog/c.png"],
        {"test": ["cat"], "train": ["cat", "dog"]},
    ),
    "a train split alone": (["train/cat/a.png", "train/dog/b.png"], {"train": ["cat", "dog"]}),
    "a test split alone": (["test/a.png", "test/b.png"], {"test": ["", ""]}),
    "all in one folder": (["photos/cat/a.png", "photos/dog/b.png"], {"train": ["cat", "dog"]}),
    "splits in one folder": (["x/test/a.png", "x/train/b.png"], {"test": [""], "train": [""]}),
    "a folder in each split": (["test/images/a.png", "train/images/b.png"], {"test": [""], "train": [""]}),
    "brackets": (["[cat]/a*.png", "{dog}/b?.png"], {"train": ["[cat]", "{dog}"]}),
}


@pytest.mark.parametrize("case", IMAGES)
def test_splits_and_classes(case: str) -> None:
    """Every image is in a split, and in its class."""
    names, expected = IMAGES[case]
    found = image_splits(listing(*names))
    assert {split: [folder for _, folder in images] for split, images in found.items()} == expected
    assert sorted(name for images in found.values() for name, _ in images) == sorted(names)


def test_a_split_without_images_is_a_split() -> None:
    """So that it is refused as empty, and no other test split made in its place."""
    assert image_splits(listing("train/a.png", empty=("test",)))["test"] == []
    assert list(image_splits(listing("cat/a.png", "dog/b.png", empty=("test",)))) == ["train"]


@pytest.mark.parametrize("other", ["extra/c.png", "c.png"])
def test_splits_beside_something_else_are_refused(other: str) -> None:
    """Two folders named as splits cannot be classes, and one more cannot be a split."""
    with pytest.raises(
        InputError, match=rf"test, train, which look like splits, and beside them {other[:5]}"
    ):
        image_splits(listing("test/a.png", "train/b.png", other))


PARQUET = {
    "no names": (["0.parquet", "more/1.parquet"], {"train": ["0.parquet", "more/1.parquet"]}),
    "shards": (
        ["data/test-0.parquet", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
        {
            "test": ["data/test-0.parquet"],
            "train": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
        },
    ),
    "a word inside": (
        ["mnist-test.parquet", "mnist_train1.parquet"],
        {"test": ["mnist-test.parquet"], "train": ["mnist_train1.parquet"]},
    ),
    "folders": (
        ["train/0.parquet", "val/0.parquet"],
        {"train": ["train/0.parquet"], "validation": ["val/0.parquet"]},
    ),
    "the file's name before the folder's": (["dev/train.parquet"], {"train": ["dev/train.parquet"]}),
    "letters around a word": (
        ["contest.parquet", "latest.parquet"],
        {"train": ["contest.parquet", "latest.parquet"]},
    ),
}


@pytest.mark.parametrize("case", PARQUET)
def test_splits_of_parquet_files(case: str) -> None:
    """Every file is in a split."""
    names, expected = PARQUET[case]
    assert parquet_splits(Listing(Path("/set"), parquet=dict.fromkeys(names, STATE))) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [(["train.parquet", "more.parquet"], "beside them more.parquet"), (["train-test.parquet"], "rename it")],
)
def test_parquet_files_of_no_clear_split_are_refused(names: list[str], message: str) -> None:
    """None is dropped, and none put where it may not belong."""
    with pytest.raises(InputError, match=message):
        parquet_splits(Listing(Path("/set"), parquet=dict.fromkeys(names, STATE)))


def test_links_are_followed_and_end(folders: Folders, tmp_path: Path) -> None:
    """Linked folders and files are read; a link to a folder above, or to nothing, is named."""
    elsewhere, root = folders.images("elsewhere", 2), folders.images("set/cat", 2).parent
    (root / "dog").symlink_to(elsewhere)
    (root / "cat" / "linked.png").symlink_to(elsewhere / "000.png")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nothing.png")
    found = listing_of(root)
    names = ["cat/000.png", "cat/001.png", "cat/gone.png", "cat/linked.png", "dog/000.png", "dog/001.png"]
    assert sorted(found.images) == names
    assert found.unread == ["cat/up/"]
    assert found.linked == [elsewhere.resolve()]


def test_every_other_file_is_named(folders: Folders) -> None:
    """Hidden files that are no images need no word; endings count in any case."""
    root = folders.images("set", 2)
    for name in ("notes.txt", "more.zip", "._000.png", ".DS_Store", "holiday", "x.zip.PNG"):
        shutil.copy(root / "000.png", root / name)
    (root / ".thumbs").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe.png")
    found = listing_of(root)
    assert sorted(found.images) == ["000.png", "001.png", "x.zip.PNG"]
    assert set(found.unread) >= {"notes.txt", "more.zip", "._000.png", "holiday", ".thumbs/"}
    assert ".DS_Store" not in found.unread
    assert ("pipe.png" in found.unread) == hasattr(os, "mkfifo")
