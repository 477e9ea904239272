"""Streams of parquet files: the same batches whoever reads them, and from wherever they are resumed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image

from rasterwise.data import reading
from rasterwise.data.augmentation import Augmentation, augmented
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.data.sources import parquet
from rasterwise.data.sources.parquet import ParquetRows
from rasterwise.data.splits import Split
from rasterwise.data.streaming import Shuffle, StreamedSplit, Windows
from tests.conftest import numbered_png

LAYOUTS = {"one row group": [[61]], "many files": [[7, 9], [1], [13, 4], [2, 2, 2], [21]]}
READERS = [(1, 2), (1, 3), (2, 0), (3, 0), (4, 0), (2, 2)]
BATCH = 12

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores


def save_numbered(
    folder: Path, layout: Sequence[Sequence[int]], split: str = "train", start: int = 0
) -> Path:
    """Parquet files of images that show their numbers: a list of row groups' lengths for each file."""
    from pyarrow.parquet import ParquetWriter

    folder.mkdir(parents=True, exist_ok=True)
    features = Features({"image": Image(), "label": ClassLabel(names=["even", "odd"])})
    for file, groups in enumerate(layout):
        with ParquetWriter(folder / f"{split}-{file:05d}.parquet", features.arrow_schema) as writer:
            for count in groups:
                numbers = range(start, start + count)
                rows = {
                    "image": [{"bytes": numbered_png(number), "path": None} for number in numbers],
                    "label": [number % 2 for number in numbers],
                }
                table = Dataset.from_dict(rows, features=features).data.table
                writer.write_table(table, row_group_size=count)
                start += count
    return folder


def numbers_of(values: torch.Tensor) -> list[int]:
    """The numbers that images show."""
    shown = values[:, 0].long()
    return (shown[:, 0, 0] + 256 * shown[:, 0, 1]).tolist()


@pytest.fixture(scope="module", params=LAYOUTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = LAYOUTS[request.param]
    made = save_numbered(tmp_path_factory.mktemp("streams") / "set", layout)
    return save_numbered(made, [[5]], "test", 61)


def opened(folder: Path, workers: int = 0, **settings: object) -> StreamedSplit:
    config = DataConfig(str(folder), streaming=True, workers=workers, **{"shuffle_buffer": 16, **settings})  # type: ignore[arg-type]
    split = open_images(config).train
    assert isinstance(split, StreamedSplit)
    return split


def drawn(split: Split, count: int, batch_size: int = BATCH, **settings: int) -> list[list[int]]:
    batches = split.shuffled(batch_size, **{"seed": 3, **settings})
    taken = list(itertools.islice(batches, count))
    for batch in taken:
        assert batch.labels is not None
        assert batch.labels.tolist() == [number % 2 for number in numbers_of(batch.values)]
    return [numbers_of(batch.values) for batch in taken]


@pytest.mark.parametrize(("world", "workers"), READERS)
def test_batches_do_not_depend_on_who_reads_them(folder: Path, world: int, workers: int) -> None:
    """Processes together, each with its workers, see the batches that one process sees, item by item."""
    whole = drawn(opened(folder), 12)
    split = opened(folder, workers)
    parts = [drawn(split, 12, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        for rank in range(world):
            assert parts[rank][step] == batch[rank::world]


def test_an_epoch_holds_every_item_once(folder: Path) -> None:
    """Also where the batch size does not divide it; another seed and another epoch have another order."""
    for batch_size, buffer in ((7, 16), (61, 1), (100, 1000)):
        split = opened(folder, shuffle_buffer=buffer)
        stream = [number for batch in drawn(split, -(-183 // batch_size), batch_size) for number in batch]
        epochs = [stream[61 * epoch : 61 * (epoch + 1)] for epoch in range(3)]
        assert [sorted(epoch) for epoch in epochs] == [list(range(61))] * 3
        if buffer > 1:
            assert epochs[0] != epochs[1] != epochs[2]
            assert epochs[0] != sorted(epochs[0])
            assert drawn(split, 1, seed=4) != drawn(split, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_is_the_uninterrupted_one(folder: Path, workers: int) -> None:
    """From any batch, in any epoch."""
    whole = drawn(opened(folder), 16)
    for start in (1, 4, 5, 11) if not workers else (6,):
        assert drawn(opened(folder, workers), 16 - start, start=start) == whole[start:]


def test_resuming_decodes_nothing_that_was_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch from far on costs as many images as the first."""
    split, decoded, decode = opened(folder), list[int](), reading.decode_image
    monkeypatch.setattr(reading, "decode_image", lambda content: decoded.append(1) or decode(content))
    next(split.shuffled(BATCH, seed=0, start=100_000))
    assert len(decoded) == BATCH


@pytest.mark.parametrize(("world", "workers"), [(1, 0), *READERS, (70, 0)])
def test_in_order_every_item_once(folder: Path, world: int, workers: int) -> None:
    """Each process has every n-th item, in order, numbered; more processes than items lose and repeat none."""
    split = opened(folder, workers)
    for batch_size in (1, 8) if not workers else (4,):
        for rank in range(world):
            batches = list(split.ordered(batch_size, rank=rank, world=world))
            found = [number for batch in batches for number in numbers_of(batch.values)]
            assert found == list(range(61))[rank::world]
            assert found == [n for batch in batches for n in batch.indices.tolist()]  # type: ignore[union-attr]
            assert all(len(batch) == batch_size for batch in batches[:-1])
    piece = [n for batch in split.ordered(3, start=5, stop=13) for n in numbers_of(batch.values)]
    assert piece == list(range(5, 13))


def test_augmentation_does_not_depend_on_who_reads(folder: Path) -> None:
    """It goes by item and epoch: processes, workers and resuming change nothing; two epochs differ."""
    change = Augmentation(rotate=30, crop=1, brightness=0.5)

    def taken(workers: int, count: int, **settings: int) -> list[torch.Tensor]:
        split = augmented(opened(folder, workers), change)
        return [batch.values for batch in itertools.islice(split.shuffled(BATCH, seed=1, **settings), count)]

    whole = taken(0, 12)
    assert all(torch.equal(a, b) for a, b in zip(whole, taken(2, 12), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole[7:], taken(0, 5, start=7), strict=True))
    for rank in range(2):
        parts = taken(0, 4, rank=rank, world=2)
        assert all(torch.equal(a[rank::2], b) for a, b in zip(whole, parts, strict=False))
    plain = [batch.values for batch in itertools.islice(opened(folder).shuffled(BATCH, seed=1), 1)]
    assert not torch.equal(whole[0], plain[0])


def test_processes_share_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an epoch, each of four processes reads about a quarter, not all."""
    folder = save_numbered(tmp_path / "set", [[10] * 10] * 4)
    save_numbered(folder, [[5]], "test")
    monkeypatch.setattr(parquet, "MOST_READ_ROWS", 5)
    split, read, plain = opened(folder, shuffle_buffer=64), list[int](), ParquetRows._plain

    def counted(rows: ParquetRows, batch: object) -> object:
        read.append(len(batch))  # type: ignore[arg-type]
        return plain(rows, batch)

    monkeypatch.setattr(ParquetRows, "_plain", counted)
    for rank in range(4):
        read.clear()
        drawn(split, 40, 8, rank=rank, world=4)  # its share of 320 of 400 items
        assert sum(read) < 200


def test_a_stream_holds_no_more_than_its_buffer(tmp_path: Path) -> None:
    """Rows held to be shuffled, over all lanes together."""
    folder = save_numbered(tmp_path / "set", [[50]] * 8)
    rows = ParquetRows.open(sorted(map(str, folder.iterdir())))
    shuffle = Shuffle(rows.lengths, 64, 0)
    windows = Windows(rows, shuffle)
    for draw in range(400):
        windows.starting_at(shuffle.position(draw))
        assert sum(len(window) for _, window, _ in windows._open.values()) <= 64


def test_every_draw_of_an_epoch_is_another_item() -> None:
    """For any lengths of runs and any buffer, positions and bounds cover an epoch once."""
    generator = np.random.default_rng(0)
    for _ in range(100):
        lengths = generator.integers(0, 9, generator.integers(1, 60))
        lengths[0] += 1
        shuffle = Shuffle(lengths, int(generator.integers(1, 40)), 5)
        epoch = int(generator.integers(0, 3))
        seen = []
        for draw in range(epoch * shuffle.length, (epoch + 1) * shuffle.length):
            position = shuffle.position(draw)
            start, stop = shuffle.bounds(position.lane)
            first = start + position.window * shuffle.window
            count = min(shuffle.window, stop - first)
            assert position.epoch == epoch
            seen.append(first + int(shuffle.within(position, count)[position.offset]))
        assert sorted(seen) == list(range(shuffle.length))


def test_a_large_row_group_is_shuffled_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into runs, it gives a batch items from all over it, not from its beginning."""
    monkeypatch.setattr(parquet, "RUN_ROWS", 10)
    folder = save_numbered(tmp_path / "set", [[160]])
    save_numbered(folder, [[5]], "test")
    first = drawn(opened(folder, shuffle_buffer=32), 1, 16)[0]
    assert len({number // 20 for number in first}) > 5
