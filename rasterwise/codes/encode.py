"""Encoding a dataset of images to codes: shard by shard, by several processes, and on from where it stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from rasterwise.codes.dataset import CodeData, CodeItems, CodesKey, open_codes, read_key, write_shard
from rasterwise.codes.shards import CODES_NAME, SPLITS, shard_path
from rasterwise.codes.writing import SHARD_SIZE, check_key, check_not_removed, finish, locked, wait
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.dataset import ImageData
from rasterwise.data.splits import Batch
from rasterwise.errors import InputError
from rasterwise.tokenizers.image import ImageTokenizer, encode_reproducibly


@dataclass(frozen=True)
class Shard:
    """Consecutive images of a split, as they are or changed.

    Attributes:
        split: "train" or "test".
        index: Among the shards of its split.
        fold: 0 for the images themselves, else which augmented copy.
        start: The first image.
        stop: The image after the last one.
    """

    split: str
    index: int
    fold: int
    start: int
    stop: int

    def path(self, folder: Path) -> Path:
        """Where in a code dataset's folder it is."""
        return shard_path(folder, self.split, self.index)


def encode_dataset(
    tokenizer: ImageTokenizer,
    images: ImageData,
    folder: Path,
    *,
    copies: int = 0,
    augmentation: Augmentation = Augmentation(),
    batch_size: int = 256,
    shard_size: int = SHARD_SIZE,
    progress: Callable[[int, int | None], None] | None = None,
    accelerator: Accelerator | None = None,
) -> CodeData:
    """Encode a dataset to a folder; one that is there already, of the same images and tokenizer, is opened.

    Each shard appears whole or not at all. An encoding that was stopped, or killed, keeps its shards, and the
    same call makes those that are lacking. Several processes make each its own. What a shard holds depends on
    neither, and how an image is changed or drawn depends on its index alone.

    Args:
        tokenizer: Turns the images into codes.
        images: What to encode.
        folder: Where to. It holds a copy of the tokenizer.
        copies: Augmented copies of each training image to encode in addition to the image itself. A small dataset
            needs them: a prior learns a few thousand code grids by heart.
        augmentation: How the copies differ from the image.
        batch_size: Images encoded at once.
        shard_size: Images a shard: what a process holds, and what a stop loses at most.
        progress: Called with (images encoded, images in all) of this process's.
        accelerator: With several processes, all of which call this.

    Raises:
        InputError: The folder holds something else, or codes of other images or another tokenizer.
    """
    key = CodesKey(
        tokenizer=tokenizer.fingerprint,
        train=images.train.fingerprint,
        test=images.test.fingerprint,
        grid=tokenizer.grid(*images.shape),
        classes=images.classes,
        copies=copies,
        augmentation=augmentation,
        captions=images.captioned,
    )
    if copies < 0 or bool(copies) != augmentation.active:
        raise InputError(
            f"{copies} copies with {augmentation}: augmented copies take both a number and a change"
        )
    if shard_size < 1 or batch_size < 1:
        raise InputError(f"shard_size is {shard_size} and batch_size {batch_size}, expected 1 or more")
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    wait(accelerator)  # nobody begins, and is looked at by others, before all have opened their images
    with locked(tokenizer, key, shard_size, folder) if rank == 0 else contextlib.nullcontext():
        wait(accelerator)
        if not (folder / CODES_NAME).exists():
            shards = _shards(images, copies, shard_size)
            lacking = [shard for shard in shards if not shard.path(folder).exists()]
            wait(accelerator)  # all have seen the same shards lacking, so that each takes others
            mine, done = lacking[rank::world], 0
            total = sum(shard.stop - shard.start for shard in mine)
            for shard in mine:
                encoded: list[Batch] = []
                for batch in getattr(images, shard.split).ordered(
                    batch_size, start=shard.start, stop=shard.stop
                ):
                    encoded.append(_encoded(tokenizer, batch, shard.fold, augmentation))
                    done += len(batch)
                    if progress:
                        progress(done, total)
                _store(encoded, shard, key, folder)
            wait(accelerator)
            if rank == 0:
                _finish(key, folder)
    wait(accelerator)
    check_key(read_key(folder), key, folder)
    return open_codes(folder)


def _finish(key: CodesKey, folder: Path) -> None:
    finish(key, {name: CodeItems(folder / name, key).shard_lengths for name in SPLITS}, folder)


def _shards(images: ImageData, copies: int, shard_size: int) -> list[Shard]:
    """All that is to be encoded: every image, and then again ``copies`` times, each time in another way."""
    shards = []
    for split, folds in zip(SPLITS, (1 + copies, 1), strict=True):
        length, index = getattr(images, split).length, 0
        for fold in range(folds):
            for start in range(0, length, shard_size):
                shards.append(Shard(split, index, fold, start, min(start + shard_size, length)))
                index += 1
    return shards


def _encoded(tokenizer: ImageTokenizer, batch: Batch, fold: int, augmentation: Augmentation) -> Batch:
    assert batch.indices is not None, "read in order, items have indices"
    indices, images = batch.indices.tolist(), batch.values
    if fold:
        images = augmentation(images, seed=fold, indices=indices)
    images = images.to(tokenizer.device)
    symbols = encode_reproducibly(tokenizer, images, indices, fold)
    return Batch(symbols.flatten(1).to("cpu", torch.int32), batch.labels, captions=batch.captions)


def _store(encoded: list[Batch], shard: Shard, key: CodesKey, folder: Path) -> None:
    check_not_removed(folder)
    codes = [batch.values.numpy() for batch in encoded]
    labels = [batch.labels.numpy() for batch in encoded if batch.labels is not None]
    captions = [some for batch in encoded for some in batch.captions or ()]
    write_shard(
        shard.path(folder),
        np.concatenate([np.empty((0, key.grid.size), dtype=np.int32), *codes]),
        np.concatenate([np.empty(0, dtype=np.int64), *labels]) if key.classes else None,
        tuple(captions) if key.captions else None,
        key,
    )
