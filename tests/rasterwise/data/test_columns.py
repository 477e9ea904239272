"""Labels of any type are classes, and what cannot be a label is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rasterwise.data import columns
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.errors import InputError
from tests.conftest import Folders, numbered_png


def save(
    folder: Path, labels: Any, name: str = "label", split: str = "train", names: list[str] | None = None
) -> Path:
    """A parquet file of as many images as labels, written without ``datasets``."""
    folder.mkdir(exist_ok=True)
    features = {"image": {"_type": "Image"}, name: {"_type": "ClassLabel", "names": names}}
    table = pyarrow.table({"image": [{"bytes": numbered_png(n)} for n in range(len(labels))], name: labels})
    if names:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    return folder


def read(folder: Path, **settings: Any) -> ImageData:
    data = open_images(DataConfig(str(folder), workers=0, **settings))
    for split in (data.train, data.test):
        list(split.ordered(8))
    return data


def labels_of(data: ImageData) -> list[int]:
    return [n for split in (data.train, data.test) for b in split.ordered(8) for n in b.labels.tolist()]  # type: ignore[union-attr]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([7, 3], ("3", "7")),
        ([-1, 10, 9], ("-1", "9", "10")),
        (["dog", "cat"], ("cat", "dog")),
        ([True, False], ("False", "True")),
        (pyarrow.array(["b", "a"] * 10).dictionary_encode(), ("a", "b")),
    ],
)
def test_values_are_classes(tmp_path: Path, values: Any, names: tuple[str, ...], streaming: bool) -> None:
    """In their order, under their own names, and every row has that of its value."""
    stored = values * 10 if isinstance(values, list) else values
    save(tmp_path / "set", stored)
    data = read(save(tmp_path / "set", stored[:4], split="test"), streaming=streaming)
    assert data.classes == names
    expected = [str(value) for value in (*stored, *stored[:4])]
    assert [data.classes[label] for label in labels_of(data)] == expected


def test_a_column_of_another_name_is_named(tmp_path: Path) -> None:
    """By a flag; and none is read where that is asked for."""
    folder = save(tmp_path / "set", [1, 2] * 10, "kind")
    assert read(folder).classes == ()
    assert read(folder, label_column="kind").classes == ("1", "2")
    assert read(save(tmp_path / "other", [1, 2] * 10), label_column="none").classes == ()


@pytest.mark.parametrize("values", [[0.5, 1.5] * 10, [[1, 2]] * 20])
def test_what_is_no_class_is_refused(tmp_path: Path, values: list[Any]) -> None:
    """It is not dropped without a word; the line says how to do without it."""
    with pytest.raises(InputError, match=r"column 'label' holds .*--label-column none"):
        read(save(tmp_path / "set", values))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_label_that_is_none_is_named(tmp_path: Path, streaming: bool) -> None:
    """A null, and an index that no class has."""
    with pytest.raises(InputError, match=r"image 19 of split .* has label None, expected one of"):
        read(save(tmp_path / "set", [1, 2] * 9 + [1, None]), streaming=streaming)
    with pytest.raises(InputError, match=r"image 19 of split .* has label 2, expected 0 to 1"):
        read(save(tmp_path / "other", [0, 1] * 9 + [0, 2], names=["a", "b"]), streaming=streaming)


def test_the_splits_agree(tmp_path: Path) -> None:
    """On the columns, on the names of classes in their order, and on the values."""
    folder = save(tmp_path / "set", [0, 1] * 10, names=["a", "b"])
    for test, message in (
        ({"labels": [0, 1], "names": ["b", "a"]}, r"classes b, a in 'test', but a, b"),
        ({"labels": [0, 1]}, "holds int64 in 'test', but class labels"),
        ({"labels": [0, 1], "name": "kind"}, "no column 'label'"),
    ):
        with pytest.raises(InputError, match=message):
            read(save(folder, split="test", **test))  # type: ignore[arg-type]
    plain = save(tmp_path / "plain", [1, 2] * 10)
    with pytest.raises(InputError, match="has 3 in split 'test'"):
        read(save(plain, [1, 3], split="test"))


def test_files_of_a_split_agree(tmp_path: Path) -> None:
    """Else one class would be another in half of them; columns that are not read may differ."""
    folder = save(tmp_path / "set", [0, 1] * 10, split="train-0", names=["a", "b"])
    with pytest.raises(InputError, match=r"train-1\.parquet, but a, b in .*train-0\.parquet"):
        read(save(folder, [0, 1] * 10, split="train-1", names=["b", "a"]))
    for values, message in (
        (["a", "b"] * 10, r"holds string in .*train-1"),
        ([[1]] * 20, r"holds .*List.* in"),
    ):
        mixed = save(tmp_path / str(len(message)), [0, 1] * 10, split="train-0")
        with pytest.raises(InputError, match=message):
            read(save(mixed, values, split="train-1"))
    lacking = save(tmp_path / "lacking", [0, 1] * 10, split="train-0")
    with pytest.raises(InputError, match=r"train-1\.parquet has no column 'label'"):
        read(save(lacking, [0, 1] * 10, "kind", "train-1"))
    extra = save(tmp_path / "extra", [0.5] * 20, "score", "train-0")
    assert read(save(extra, ["x"] * 20, "score", "train-1")).found == 40


def test_too_many_values_are_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of identifiers is not taken for classes."""
    monkeypatch.setattr(columns, "MOST_CLASSES", 10)
    with pytest.raises(InputError, match="has 11 values, expected at most 10 classes"):
        read(save(tmp_path / "set", [*range(11), *range(11)]))


def test_classes_of_folders(folders: Folders) -> None:
    """Those of the train split; a test class that it lacks is named, and so is an image in no class folder."""
    folders.images("set/train/cat", 4)
    folders.images("set/train/dog", 4)
    root = folders.images("set/test/cat", 4).parents[1]
    assert read(root).classes == ("cat", "dog")
    folders.images("set/test/Dog", 2)
    with pytest.raises(InputError, match="'Dog' in split 'test'"):
        read(root)
    loose = folders.classes("loose", 6)
    (loose / "cat" / "000.png").rename(loose / "stray.png")
    with pytest.raises(InputError, match=r"stray\.png lie in none of them.*--label-column none"):
        read(loose)
    assert read(loose, label_column="none").found == 12
