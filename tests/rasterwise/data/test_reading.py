"""One broken image in 2,000: named by default, counted and left out by --skip-broken."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path

import psutil
import pytest
import torch
from datasets import Dataset, Features, Image

from rasterwise.data import reading
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, broken_images, open_images
from rasterwise.data.sources.rows import IndexedRows
from rasterwise.data.splits import Batch, Split
from rasterwise.errors import InputError
from rasterwise.training.accelerator import start_accelerator
from rasterwise.training.config import TrainingConfig
from tests.conftest import numbered_png

COUNT, BROKEN = 2_000, 1403
WAYS = ["in memory", "on demand", "streamed", "streamed by workers"]


def save_images(folder: Path, broken: set[int], count: int, test: int = 8) -> Path:
    """A parquet dataset of images that show their numbers, some of them cut short."""
    folder.mkdir()
    for split, numbers in (("train", range(count)), ("test", range(count, count + test))):
        images = [numbered_png(number) for number in numbers]
        cut = [{"bytes": p[:40] if n in broken else p} for n, p in zip(numbers, images, strict=True)]
        rows = Dataset.from_dict({"image": cut}, features=Features({"image": Image()}))
        rows.to_parquet(folder / f"{split}.parquet", batch_size=500)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("broken") / "set", {BROKEN}, COUNT)


def opened(folder: Path, way: str, skip_broken: bool, monkeypatch: pytest.MonkeyPatch) -> ImageData:
    if way == "on demand":
        monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 0}))
    streaming = way.startswith("streamed")
    workers = 1 if "workers" in way else 0
    return open_images(DataConfig(str(folder), streaming=streaming, skip_broken=skip_broken, workers=workers))


def numbers_of(batch: Batch) -> list[int]:
    shown = batch.values[:, 0].long()
    return (shown[:, 0, 0] + 256 * shown[:, 0, 1]).tolist()


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_image_stops_the_reading(folder: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence that names it, also from a worker."""
    with pytest.raises(InputError) as caught:
        for _ in opened(folder, way, False, monkeypatch).train.ordered(256):
            pass
    message = str(caught.value)
    assert f"image {BROKEN} of split 'train'" in message
    assert "does not decode" in message
    assert "--skip-broken" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("way", WAYS)
def test_skipping_counts_it_and_goes_on(
    folder: Path, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In order, all others come once; at random, batches stay full; the log and the count tell of it."""
    data = opened(folder, way, True, monkeypatch)
    with caplog.at_level(logging.WARNING):
        found = [number for batch in data.train.ordered(256) for number in numbers_of(batch)]
    assert found == [number for number in range(COUNT) if number != BROKEN]
    assert list(data.train.broken) == [BROKEN]
    assert broken_images(data, start_accelerator(TrainingConfig(device="cpu"))) == 1
    if way != "in memory":  # which says it when it opens
        assert [f"image {BROKEN} of split 'train'" in record.message for record in caplog.records] == [True]
    batches = list(itertools.islice(data.train.shuffled(200, seed=0), 10))
    assert {len(batch) for batch in batches} == {200}
    assert BROKEN not in {number for batch in batches for number in numbers_of(batch)}
    resumed = next(data.train.shuffled(200, seed=0, start=7))
    assert torch.equal(resumed.values, batches[7].values)


def test_reading_into_memory_says_how_many(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At its end."""
    data = open_images(DataConfig(str(folder), skip_broken=True))
    assert data.train.length == COUNT - 1
    assert caplog.records[-1].message == "read 1999 images of split 'train', and left out 1 broken"


@pytest.mark.parametrize("way", WAYS[1:3])
def test_what_takes_a_broken_ones_place_hangs_on_nothing_else(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the number of processes or on where a stream is resumed; many are broken here."""
    broken = {5, 6, 7, 20, 33, 48, 49}
    split = opened(save_images(tmp_path / "set", broken, 50), way, True, monkeypatch).train

    def taken(**settings: int) -> list[list[int]]:
        return [numbers_of(batch) for batch in itertools.islice(split.shuffled(12, seed=2, **settings), 9)]

    whole = taken()
    assert all(len(batch) == 12 and not broken & set(batch) for batch in whole)
    assert taken(start=4)[:5] == whole[4:]
    for world in (2, 3):
        parts = [taken(rank=rank, world=world) for rank in range(world)]
        assert all(parts[r][step] == whole[step][r::world] for step in range(9) for r in range(world))
    for world, batch_size in ((1, 1), (2, 4), (3, 5)):
        ordered = [split.ordered(batch_size, rank=rank, world=world) for rank in range(world)]
        found = [n for batches in ordered for batch in batches for n in numbers_of(batch)]
        assert sorted(found) == [number for number in range(50) if number not in broken]
    assert set(split.broken) == broken


@pytest.mark.parametrize("way", WAYS[:3])
def test_a_dataset_without_a_whole_image_is_refused(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of looking for one for ever."""
    folder = save_images(tmp_path / "set", set(range(30)), 30)
    with pytest.raises(InputError, match="no whole image"):
        opened(folder, way, True, monkeypatch)
    whole = save_images(tmp_path / "other", set(range(30, 38)), 30)
    with pytest.raises(InputError, match=r"no image of split 'test' decodes|no whole one is among them"):
        next(iter(opened(whole, way, True, monkeypatch).test.shuffled(4, seed=0)))


def read_all(folder: Path, streaming: bool) -> None:
    data = open_images(DataConfig(str(folder), streaming=streaming))
    for split in (data.train, data.test):
        list(split.ordered(8))


def test_rows_held_out_keep_their_indices(tmp_path: Path) -> None:
    """A broken image is named by its row in the file, whichever part it fell into."""
    folder = save_images(tmp_path / "set", {35}, 40)
    (folder / "test.parquet").unlink()
    for streaming in (False, True):
        with pytest.raises(InputError, match="image 35 of split"):
            read_all(folder, streaming)


def test_processes_agree_on_where_images_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one process has too little memory none holds them: they would draw other batches."""
    monkeypatch.setattr(reading, "all_agree", lambda here: False)
    folder = save_images(tmp_path / "set", set(), 12)
    split: Split = open_images(DataConfig(str(folder))).train
    assert isinstance(split._items.rows, IndexedRows)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["parquet", "png"])
def test_a_file_that_is_changed_after_the_dataset_was_opened_is_named(kind: str, tmp_path: Path) -> None:
    """Where files are read as they are needed; a broken image that is left out it is not."""
    folder = tmp_path / "set"
    if kind == "parquet":
        save_images(folder, set(), 20)
    else:
        folder.mkdir()
        for number in range(20):
            (folder / f"{number:02d}.png").write_bytes(numbered_png(number))
    data = open_images(DataConfig(str(folder), streaming=True, skip_broken=True, workers=0))
    next(data.train.ordered(20))
    changed = max(folder.glob("*train.parquet")) if kind == "parquet" else folder / "05.png"
    os.utime(changed, ns=(0, 10**18))
    with pytest.raises(InputError, match=rf"{changed.name}.* was changed after the dataset was opened"):
        list(data.train.ordered(20))
