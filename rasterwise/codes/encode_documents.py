"""Encoding interleaved documents to shards: as ``encode`` does it with images, restartable and by several processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from rasterwise.codes.documents import (
    KIND,
    DocumentData,
    DocumentItems,
    DocumentsKey,
    EncodedDocument,
    open_documents,
    read_documents_key,
    write_documents,
)
from rasterwise.codes.shards import CODES_NAME, SPLITS, shard_path
from rasterwise.codes.writing import SHARD_SIZE, check_key, check_not_removed, finish, locked, wait
from rasterwise.data.document_sources import Documents, DocumentSplits, PreparedDocument
from rasterwise.errors import InputError
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.image import ImageTokenizer, encode_reproducibly


def encode_documents(
    tokenizer: ImageTokenizer,
    documents: DocumentSplits,
    folder: Path,
    *,
    batch_size: int = 256,
    shard_size: int = SHARD_SIZE,
    progress: Callable[[int, int | None], None] | None = None,
    accelerator: Accelerator | None = None,
) -> DocumentData:
    """Encode documents to a folder; one that is there already, of the same documents and tokenizer, is opened.

    Shards appear, and an encoding that was stopped goes on, as with ``encode_dataset``.

    Args:
        tokenizer: Turns the images into codes.
        documents: What to encode.
        folder: Where to. It holds a copy of the tokenizer.
        batch_size: Images encoded at once.
        shard_size: Documents a shard: what a process holds, and what a stop loses at most.
        progress: Called with (documents encoded, documents in all) of this process's.
        accelerator: With several processes, all of which call this.

    Raises:
        InputError: The folder holds something else, or codes of other documents or another tokenizer.
    """
    if shard_size < 1 or batch_size < 1:
        raise InputError(f"shard_size is {shard_size} and batch_size {batch_size}, expected 1 or more")
    grid = tokenizer.grid(*documents.shape)
    key = DocumentsKey(tokenizer.fingerprint, documents.train.fingerprint, documents.test.fingerprint, grid)
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    wait(accelerator)  # nobody begins, and is looked at by others, before all have read their documents
    with locked(tokenizer, key, shard_size, folder) if rank == 0 else contextlib.nullcontext():
        wait(accelerator)
        if not (folder / CODES_NAME).exists():
            splits = {"train": documents.train, "test": documents.test}
            lacking = [
                (name, index)
                for name in SPLITS
                for index in range(-(-len(splits[name]) // shard_size))
                if not shard_path(folder, name, index).exists()
            ]
            wait(accelerator)  # all have seen the same shards lacking, so that each takes others
            mine, done = set(lacking[rank::world]), 0
            total = sum(min(shard_size, len(splits[name]) - index * shard_size) for name, index in mine)
            for name in SPLITS:
                for index, part in _parts(splits[name], shard_size):
                    if (name, index) in mine:
                        encoded = _encoded(tokenizer, grid, part, index * shard_size, batch_size)
                        check_not_removed(folder)
                        write_documents(shard_path(folder, name, index), encoded)
                        done += len(part)
                        if progress:
                            progress(done, total)
            wait(accelerator)
            if rank == 0:
                lengths = {name: DocumentItems(folder / name, key).shard_lengths for name in SPLITS}
                finish(key, lengths, folder, kind=KIND)
    wait(accelerator)
    check_key(read_documents_key(folder), key, folder)
    return open_documents(folder)


def _parts(documents: Documents, size: int) -> Iterator[tuple[int, list[PreparedDocument]]]:
    """The documents of each shard, with its index."""
    reading = documents.read()
    for index in range(-(-len(documents) // size)):
        yield index, list(islice(reading, size))


def _encoded(
    tokenizer: ImageTokenizer, grid: Grid, documents: Sequence[PreparedDocument], first: int, batch_size: int
) -> list[EncodedDocument]:
    """Documents with their images as codes.

    Args:
        tokenizer: As for ``encode_documents``.
        grid: Of an image.
        documents: Which.
        first: The index of the first one in its split, on which the noise of a tokenizer that draws depends.
        batch_size: Images at once.
    """
    images = [part for document in documents for part in document if isinstance(part, Tensor)]
    codes: list[np.ndarray] = []
    for start in range(0, len(images), batch_size):
        some = torch.stack(images[start : start + batch_size]).to(tokenizer.device)
        numbers = [(first << 20) + start + number for number in range(len(some))]
        symbols = grid.flatten(encode_reproducibly(tokenizer, some, numbers, 0))
        codes += list(symbols.to("cpu", torch.int32).numpy())
    encoded = iter(codes)
    return [
        tuple(part if isinstance(part, str) else next(encoded) for part in document) for document in documents
    ]
