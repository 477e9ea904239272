"""A dataset's name means the same from everywhere; a flag that would be ignored is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from rasterwise.data.config import SAME_DATA, DataConfig, same_data
from rasterwise.data.dataset import open_images
from rasterwise.errors import InputError


def test_paths_are_stored_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are given, and whether they are there or not."""
    (tmp_path / "owner").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("x", "./x", "x/", "~/x", "owner/../x", str(tmp_path / "x")):
        assert DataConfig(given).dataset == str(tmp_path / "x")
    (tmp_path / "linked").symlink_to(tmp_path / "x")
    assert DataConfig("linked").dataset == str(tmp_path / "x")
    assert DataConfig(tmp_path / "x").dataset == str(tmp_path / "x")  # type: ignore[arg-type]


def test_a_path_is_no_address_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what lies in a folder that is there, nor a bare name; an address stays one wherever it is read."""
    monkeypatch.chdir(tmp_path)
    config = DataConfig("owner/name")
    assert (config.dataset, config.name) == ("hf://datasets/owner/name", "owner/name")
    (tmp_path / "owner").mkdir()
    assert DataConfig("owner/name").dataset == str(tmp_path / "owner" / "name")
    assert DataConfig(config.dataset) == config
    assert DataConfig("imagefolder").dataset == str(tmp_path / "imagefolder")
    assert DataConfig("imagefolder").name == "imagefolder"


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "x" * 5000, "~nobody-of-this-name/x"])
def test_what_can_be_no_path_is_refused(name: str) -> None:
    """When it is opened: in one line, not with a traceback."""
    with pytest.raises(InputError, match=r"dataset folder '.* expected 'digits', a folder"):
        open_images(DataConfig(name))


def test_the_same_images_again() -> None:
    """A tokenizer says what it was trained on; one that does not is refused."""
    trained = asdict(DataConfig(dataset="digits", size=16, resample="box"))
    found = same_data(DataConfig(dataset="same", workers=2), trained)
    assert found == DataConfig(dataset="digits", size=16, resample="box", workers=2)
    assert same_data(DataConfig(dataset="digits"), trained) == DataConfig(dataset="digits")
    with pytest.raises(InputError, match="--dataset"):
        same_data(SAME_DATA, {})


def test_splits_of_the_same_images() -> None:
    """As in the training, unless one is named; with a dataset that is named, by their usual names."""
    trained = asdict(DataConfig(dataset="digits", test_split="validation"))
    assert same_data(SAME_DATA, trained).test_split == "validation"
    assert same_data(DataConfig("same", train_split="same", test_split="test"), trained).test_split == "test"
    named = same_data(DataConfig("digits", train_split="same", test_split="same"), trained)
    assert (named.train_split, named.test_split) == ("train", "test")


@pytest.mark.parametrize(
    "given",
    [
        {"size": 8},
        {"image_column": "x"},
        {"label_column": "x"},
        {"subset": "x"},
        {"colour": "grey"},
        {"resample": "box"},
    ],
)
def test_how_to_prepare_takes_a_dataset(given: dict[str, object]) -> None:
    """The images of the training are prepared as they were then: what says otherwise is not ignored."""
    with pytest.raises(InputError, match=f"--{next(iter(given)).replace('_', '-')} .* takes --dataset"):
        same_data(DataConfig("same", **given), asdict(DataConfig()))  # type: ignore[arg-type]
