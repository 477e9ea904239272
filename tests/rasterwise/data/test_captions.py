"""Captions stay with their images, wherever the images are kept and however they are read."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value

from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.data.indexed import first_of
from rasterwise.data.sources.digits import digit_captions
from rasterwise.data.splits import Batch, Split
from rasterwise.errors import InputError
from tests.conftest import numbered_png

COUNT = 40


def captions_of(number: int) -> list[str]:
    return [f"{word} {number}" for word in ("one", "two", "three")[: 1 + number % 3]]


def save_parquet(folder: Path, *, broken: bool = False) -> Path:
    """Images that show their numbers, with one to three captions that say them."""
    images = [
        {"bytes": b"" if broken and n % 7 == 3 else numbered_png(n), "path": None} for n in range(COUNT)
    ]
    rows = {"image": images, "text": [captions_of(number) for number in range(COUNT)]}
    features = Features({"image": Image(decode=False), "text": List(Value("string"))})
    folder.mkdir()
    for split in ("train", "test"):
        Dataset.from_dict(rows, features=features).cast_column("image", Image()).to_parquet(
            folder / f"{split}.parquet"
        )
    return folder


def save_images(folder: Path) -> Path:
    """The same as files, with metadata.jsonl."""
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:03d}.png").write_bytes(numbered_png(number))
    rows = [{"file_name": f"{number:03d}.png", "text": captions_of(number)} for number in range(COUNT)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def numbers(batch: Batch) -> list[int]:
    return batch.values[:, 0, 0, 0].tolist()


def check_ordered(split: Split) -> None:
    for batch in split.ordered(7):
        assert batch.captions is not None
        assert [list(some) for some in batch.captions] == [captions_of(number) for number in numbers(batch)]


def check_shuffled(split: Split) -> None:
    """In six epochs every image gets each of its captions equally often, and no other image's."""
    drawn = Counter[str]()
    batches = split.shuffled(split.length, seed=0)
    for _ in range(6):
        batch = next(batches)
        assert batch.captions is not None
        for number, some in zip(numbers(batch), batch.captions, strict=True):
            (one,) = some
            assert one in captions_of(number)
            drawn[one] += 1
    for number in {int(one.split()[1]) for one in drawn}:
        assert {drawn[one] for one in captions_of(number)} == {6 // len(captions_of(number))}


@pytest.mark.parametrize("kind", ["parquet", "images"])
@pytest.mark.parametrize("kept", ["held", "as needed", "streamed"])
def test_captions_stay_with_their_images(
    tmp_path: Path, kind: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From parquet files and from folders; all of them in order, one of them shuffled."""
    folder = save_parquet(tmp_path / "set") if kind == "parquet" else save_images(tmp_path / "set")
    if kept == "as needed":
        monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 0}))
    config = DataConfig(dataset=str(folder), streaming=kept == "streamed", workers=0)
    data = open_images(config, captions=True)
    for split in (data.train, data.test):
        check_ordered(split)
    check_shuffled(data.train)


def test_broken_images_take_their_captions_with_them(tmp_path: Path) -> None:
    """Those that are left keep theirs."""
    folder = save_parquet(tmp_path / "set", broken=True)
    data = open_images(DataConfig(dataset=str(folder), skip_broken=True), captions=True)
    assert data.train.length == COUNT - 6
    check_ordered(data.train)
    check_shuffled(data.train)


def test_workers_and_augmentation_keep_captions(tmp_path: Path) -> None:
    """What a worker reads and changes has its captions still."""
    data = open_images(DataConfig(dataset=str(save_images(tmp_path / "set")), workers=2), captions=True)
    batches = data.train.shuffled(8, seed=0, change=lambda images, draws: images + 100)
    batch = next(batches)
    assert batch.captions is not None
    for number, (one,) in zip(numbers(batch), batch.captions, strict=True):
        assert one in captions_of(number - 100)


def test_captions_are_read_on_request_alone(tmp_path: Path) -> None:
    """Without it they cost nothing; with it they are part of the fingerprint."""
    folder = save_images(tmp_path / "set")
    config = DataConfig(dataset=str(folder))
    without, read = open_images(config), open_images(config, captions=True)
    assert next(without.train.ordered(4)).captions is None
    assert torch.equal(first_of(without.train, 0).values, first_of(read.train, 0).values)
    metadata = folder / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("one 7", "eins 7"))
    changed = open_images(config, captions=True)
    assert open_images(config).train.fingerprint == without.train.fingerprint
    assert len({without.train.fingerprint, read.train.fingerprint, changed.train.fingerprint}) == 3
    streamed = replace(config, streaming=True)
    before = open_images(streamed, captions=True).train.fingerprint
    metadata.write_text(metadata.read_text().replace("eins 7", "one 7"))
    assert open_images(streamed, captions=True).train.fingerprint != before
    assert "metadata.jsonl" in read.origin.files


def test_a_test_split_without_captions_opens_where_none_are_read(tmp_path: Path) -> None:
    """And is refused where they are."""
    folder = save_parquet(tmp_path / "set")
    path = str(folder / "test.parquet")
    Dataset.from_parquet(path).remove_columns("text").to_parquet(path)
    config = DataConfig(dataset=str(folder))
    assert open_images(config).test.length == COUNT
    with pytest.raises(InputError, match="split 'test' has no column 'text'"):
        open_images(config, captions=True)


def test_digits_have_captions() -> None:
    """Without a download, in several wordings."""
    batch = first_of(open_images(DataConfig(), captions=True).test, 50)
    assert batch.labels is not None
    assert batch.captions is not None
    assert [digit_captions(label) for label in batch.labels.tolist()] == list(batch.captions)


def test_batches_are_cut_and_joined_with_their_captions() -> None:
    """By slices and by index tensors."""
    batch = Batch(torch.arange(3).view(3, 1, 1, 1), captions=(("a",), ("b", "c"), ("d",)))
    assert batch[1:].captions == (("b", "c"), ("d",))
    assert batch[torch.tensor([2, 0])].to("cpu").captions == (("d",), ("a",))
    assert batch.pin_memory().captions == batch.captions if torch.cuda.is_available() else True


def test_images_without_captions_are_refused(tmp_path: Path) -> None:
    """A dataset without a column, a column of something else, and a row without a caption."""
    folder = save_parquet(tmp_path / "set")
    config = DataConfig(dataset=str(folder))
    with pytest.raises(InputError, match="--caption-column 'image' holds images, expected text"):
        open_images(replace(config, caption_column="image"), captions=True)
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    images = [{"bytes": numbered_png(number), "path": None} for number in range(20)]
    rows = Dataset.from_dict({"image": images}).cast_column("image", Image())
    rows.to_parquet(lacking / "train.parquet")
    with pytest.raises(
        InputError, match="has no captions; its columns are image: choose with --caption-column"
    ):
        open_images(DataConfig(dataset=str(lacking)), captions=True)
    rows.add_column("caption", ["a"] * 5 + [None] + ["a"] * 14).to_parquet(lacking / "train.parquet")
    with pytest.raises(InputError, match=r"image 5 of split 'train' .* has no caption"):
        open_images(DataConfig(dataset=str(lacking)), captions=True)
