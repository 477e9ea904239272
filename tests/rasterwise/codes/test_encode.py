"""Encoding: the same codes whoever makes them, in batches of whatever size, and however often it was stopped."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

import rasterwise.codes.encode as encode_module
from rasterwise.codes.dataset import open_codes
from rasterwise.codes.encode import encode_dataset
from rasterwise.codes.shards import CODES_NAME, UNFINISHED_NAME
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.indexed import tensor_split
from rasterwise.errors import InputError
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from tests.conftest import Chain
from tests.forked import fork, fork_two, module
from tests.rasterwise.data.test_reading import save_images
from tests.rasterwise.files.test_whole import killed

TURNED = Augmentation(rotate=15)
LEVELS = PixelTokenizerConfig(levels=4)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    """The first images of both splits."""
    data = open_images(DataConfig())
    batches = [next(split.ordered(24)) for split in (data.train, data.test)]
    train, test = (tensor_split(batch.values, batch.labels) for batch in batches)
    return ImageData(train, test, data.shape, data.classes, data.columns)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Counting:
    """How many images a tokenizer encoded, and when it breaks."""

    images: int = 0
    largest: int = 0
    breaks_at: float = field(default=float("inf"))


class Counted(PixelTokenizer):
    """A tokenizer that breaks after some images."""

    def __init__(self, counting: Counting) -> None:
        super().__init__(LEVELS)
        self.counting = counting

    def encode(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        self.counting.images += len(images)
        self.counting.largest = max(self.counting.largest, len(images))
        if self.counting.images > self.counting.breaks_at:
            raise KeyboardInterrupt
        return super().encode(images, generator)


def test_an_encoding_that_was_stopped_goes_on(digits: ImageData, tmp_path: Path) -> None:
    """Wherever it stops, finished shards stay as they are and the others are made: the files are the same."""
    settings = {"copies": 2, "augmentation": TURNED, "batch_size": 4, "shard_size": 10}
    encode_dataset(Counted(Counting()), digits, tmp_path / "whole", **settings)  # type: ignore[arg-type]
    whole = contents(tmp_path / "whole")
    assert sum(name.endswith(".arrow") for name in whole) == 12
    for breaks_at in (0, 9, 10, 53, 95):
        folder, counting = tmp_path / str(breaks_at), Counting(breaks_at=breaks_at)
        with pytest.raises(KeyboardInterrupt):
            encode_dataset(Counted(counting), digits, folder, **settings)  # type: ignore[arg-type]
        kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.arrow")}
        assert not list(folder.rglob("*pending*"))
        with pytest.raises(InputError, match="not finished"):
            open_codes(folder)
        again = Counting()
        encode_dataset(Counted(again), digits, folder, **settings)  # type: ignore[arg-type]
        assert contents(folder) == whole
        assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
        done = sum(Dataset.from_file(str(path)).num_rows for path in kept)
        assert again.images == 24 * 4 - done


def test_only_the_same_encoding_goes_on(digits: ImageData, tmp_path: Path) -> None:
    """Other shards, another tokenizer or other copies are refused by name; nothing is deleted."""
    with pytest.raises(KeyboardInterrupt):
        encode_dataset(
            Counted(Counting(breaks_at=12)), digits, tmp_path / "codes", shard_size=6, batch_size=6
        )
    before = contents(tmp_path / "codes")
    for tokenizer, settings, message in (
        (PixelTokenizer(LEVELS), {"shard_size": 7}, "shards of 6 images, not 7"),
        (PixelTokenizer(), {"shard_size": 6}, "another tokenizer"),
        (PixelTokenizer(LEVELS), {"shard_size": 6, "copies": 1, "augmentation": TURNED}, "other images"),
    ):
        with pytest.raises(InputError, match=message):
            encode_dataset(tokenizer, digits, tmp_path / "codes", **settings)
    assert contents(tmp_path / "codes") == before
    assert UNFINISHED_NAME in before
    assert CODES_NAME not in before


def test_augmented_copies(digits: ImageData, tmp_path: Path) -> None:
    """The images themselves come first, then their copies with their labels; the test split has none."""
    tokenizer = PixelTokenizer(LEVELS)
    codes = encode_dataset(tokenizer, digits, tmp_path / "codes", copies=2, augmentation=TURNED)
    assert (codes.train.length, codes.test.length) == (72, 24)
    batch, originals = next(codes.train.ordered(72)), next(digits.train.ordered(24))
    assert torch.equal(batch.values[:24], tokenizer.encode(originals.values))
    assert originals.labels is not None
    assert torch.equal(batch.labels, originals.labels.repeat(3))  # type: ignore[arg-type]
    assert not torch.equal(batch.values[24:48], batch.values[:24])
    assert not torch.equal(batch.values[24:48], batch.values[48:])
    with pytest.raises(InputError, match="other images"):
        encode_dataset(tokenizer, digits, tmp_path / "codes", copies=1, augmentation=TURNED)
    with pytest.raises(InputError, match="both a number and a change"):
        encode_dataset(tokenizer, digits, tmp_path / "other", copies=1)


@pytest.mark.parametrize("dynamic", [False, True])
def test_codes_do_not_depend_on_batches_and_shards(digits: ImageData, tmp_path: Path, dynamic: bool) -> None:
    """How an image is changed, and what a tokenizer that draws makes of it, hangs on its number alone."""
    tokenizer, found = PixelTokenizer(PixelTokenizerConfig(levels=2, dynamic=dynamic)), []
    for number, (batch_size, shard_size) in enumerate(((256, 4096), (5, 7), (1, 24))):
        codes = encode_dataset(
            tokenizer, digits, tmp_path / str(number), copies=2, augmentation=TURNED,
            batch_size=batch_size, shard_size=shard_size,
        )  # fmt: skip
        batch = next(codes.train.ordered(100))
        assert torch.equal(batch.values, torch.cat([part.values for part in codes.train.ordered(11)]))
        found.append(batch)
    assert all(torch.equal(found[0].values, other.values) for other in found[1:])
    assert all(torch.equal(found[0].labels, other.labels) for other in found[1:])  # type: ignore[arg-type]


def test_a_stream_is_encoded_batch_by_batch(tmp_path: Path) -> None:
    """It gives the codes of the images held in memory; a broken one is left out, and so are its copies."""
    folder = save_images(tmp_path / "set", {3, 17}, 50)
    found = []
    for streaming in (False, True):
        data = open_images(DataConfig(str(folder), streaming=streaming, skip_broken=True, workers=0))
        counting = Counting()
        codes = encode_dataset(
            Counted(counting), data, tmp_path / str(streaming), batch_size=7, shard_size=20
        )
        assert counting.largest <= 7
        assert (codes.train.length, codes.test.length) == (48, 8)
        found.append(next(codes.train.ordered(100)).values)
    assert torch.equal(*found)
    copied = encode_dataset(
        PixelTokenizer(LEVELS), data, tmp_path / "copied", copies=2, augmentation=TURNED, shard_size=1
    )
    assert copied.train.length == 3 * 48


def test_codes_are_drawn_as_they_were_when_all_were_held(digits: ImageData, tmp_path: Path) -> None:
    """Mapped shards give the batches that a split in memory gives, item by item."""
    tokenizer = PixelTokenizer(LEVELS)
    codes = encode_dataset(tokenizer, digits, tmp_path / "codes", shard_size=5)
    held = tensor_split(*(lambda batch: (batch.values, batch.labels))(next(codes.train.ordered(100))))
    for (a, b), _ in zip(zip(codes.train.shuffled(9, seed=1), held.shuffled(9, seed=1)), range(8)):  # noqa: B905
        assert a.values.dtype == torch.int64
        assert torch.equal(a.values, b.values)
        assert torch.equal(a.labels, b.labels)  # type: ignore[arg-type]


SLOWLY = """
import sys, time
from pathlib import Path
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.codes.encode import encode_dataset
from rasterwise.tokenizers.pixels import PixelTokenizer

class Slow(PixelTokenizer):
    def encode(self, images, generator=None):
        time.sleep(0.02)
        return super().encode(images, generator)

encode_dataset(Slow(), open_images(DataConfig()), Path(sys.argv[1]), batch_size=20, shard_size=100)
"""


def test_a_killed_encoding_goes_on(tmp_path: Path) -> None:
    """SIGKILL after the third shard: what is there is whole, and the rest is made as if nothing had been."""
    data, folder = open_images(DataConfig()), tmp_path / "codes"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(folder)])
    try:
        while len(list(folder.glob("train/*.arrow"))) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = {path: path.read_bytes() for path in folder.glob("train/*.arrow")}
    assert not (folder / CODES_NAME).exists()
    encode_dataset(PixelTokenizer(), data, folder, batch_size=20, shard_size=100)
    encode_dataset(PixelTokenizer(), data, tmp_path / "whole", batch_size=20, shard_size=100)
    assert contents(folder) == contents(tmp_path / "whole")
    assert all(path.read_bytes() == content for path, content in kept.items())


@pytest.mark.slow
def test_two_processes_encode_what_one_does(chain: Chain, tmp_path: Path) -> None:
    """On gloo, augmented copies included: the same files, byte for byte."""
    settings = [
        "--copies=2",
        "--rotate=10",
        "--shard-size=100",
        "--batch-size=32",
        f"--tokenizer={chain.vqvae}",
    ]
    alone = fork(module("pipeline.commands.encode", *settings, f"--output={tmp_path / 'one'}"))
    first, second = fork_two(module("pipeline.commands.encode", *settings, f"--output={tmp_path / 'two'}"))
    for ended, shown in ((alone, 1), (first, 1), (second, 0)):
        assert ended.status == 0, ended.err[-2000:]
        assert ended.out.count("broken_images") == shown
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert len(one) > 40
    assert one == two


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a second process")
def test_one_process_encodes_a_folder(digits: ImageData, tmp_path: Path) -> None:
    """A second one is refused while the first lives, and makes the rest once it was killed; nothing else is left."""
    folder, settings = tmp_path / "codes", {"batch_size": 4, "shard_size": 10}
    encode_dataset(PixelTokenizer(LEVELS), digits, tmp_path / "whole", **settings)  # type: ignore[arg-type]
    ready, done = os.pipe(), os.fork()
    if not done:
        monkey = encode_module._store

        def store(*arguments: Any) -> None:
            monkey(*arguments)
            os.write(ready[1], b".")
            time.sleep(60)

        encode_module._store = store
        encode_dataset(PixelTokenizer(LEVELS), digits, folder, **settings)  # type: ignore[arg-type]
        os._exit(1)
    os.read(ready[0], 1)
    with pytest.raises(InputError, match="another process is writing"):
        encode_dataset(PixelTokenizer(LEVELS), digits, folder, **settings)  # type: ignore[arg-type]
    os.kill(done, signal.SIGKILL)
    os.waitpid(done, 0)
    encode_dataset(PixelTokenizer(LEVELS), digits, folder, **settings)  # type: ignore[arg-type]
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")
def test_a_kill_at_any_point_is_no_obstacle(digits: ImageData, tmp_path: Path) -> None:
    """After the lock is made, say, or before it is removed: the same encoding gives the same files and no others."""
    settings = {"batch_size": 12, "shard_size": 12}
    encode_dataset(PixelTokenizer(LEVELS), digits, tmp_path / "whole", **settings)  # type: ignore[arg-type]
    whole = contents(tmp_path / "whole")
    for at in itertools.count():
        folder = tmp_path / str(at) / "codes"

        def work(folder: Path = folder) -> None:
            encode_dataset(PixelTokenizer(LEVELS), digits, folder, **settings)  # type: ignore[arg-type]

        died = killed(at, work)
        work()
        assert contents(folder) == whole, at
        if not died:
            break
    assert at > 50


def test_a_folder_that_is_removed_ends_the_encoding(digits: ImageData, tmp_path: Path) -> None:
    """In a line; it is not made anew without what was in it."""

    def remove(done: int, total: int | None) -> None:
        if done == 12:
            shutil.rmtree(tmp_path / "codes")

    with pytest.raises(InputError, match="was removed while it was being written"):
        encode_dataset(
            PixelTokenizer(LEVELS), digits, tmp_path / "codes", batch_size=4, shard_size=8, progress=remove
        )
    assert not (tmp_path / "codes").exists()


def test_captions_stay_with_their_codes(tmp_path: Path) -> None:
    """All of an image's, in whatever Unicode, in every copy and shard; training draws each of k once in k epochs."""
    texts = tuple((f"{number}: 猫",) + (f"né {number}",) * (number % 2) for number in range(7))
    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 1, 2, 2).contiguous()
    split = tensor_split(images, captions=texts)
    data = ImageData(split, split, (1, 2, 2), (), open_images(DataConfig()).columns, captioned=True)
    tokenizer, shift = PixelTokenizer(), Augmentation(shift=0.5)
    codes = encode_dataset(
        tokenizer, data, tmp_path / "codes", copies=1, augmentation=shift, batch_size=2, shard_size=3
    )
    assert next(codes.test.ordered(7)).captions == texts
    assert next(codes.train.ordered(14)).captions == texts * 2
    drawn = [
        one
        for _, batch in zip(range(2), codes.test.shuffled(7, seed=0), strict=False)
        for (one,) in batch.captions or ()
    ]
    assert sorted(drawn) == sorted(one for some in texts for one in (some * 2)[:2])
    without = ImageData(tensor_split(images), tensor_split(images), (1, 2, 2), (), data.columns)
    with pytest.raises(InputError, match="other images"):
        encode_dataset(tokenizer, without, tmp_path / "codes", copies=1, augmentation=shift)
