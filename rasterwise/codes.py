"""Datasets of codes: a dataset encoded once by a tokenizer, on disk, and never taken for another one's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rasterwise.augmentation import Augmentation
from rasterwise.data import ImageData
from rasterwise.errors import InputError
from rasterwise.files import from_json, new_folder, read_json, write_json
from rasterwise.grid import Grid
from rasterwise.pretrained import CONFIG_NAME
from rasterwise.splits import Batch, IndexedSplit, Split, tensor_split
from rasterwise.tokenizer import ImageTokenizer

CODES_NAME = "codes.json"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class CodesKey:
    """What a code dataset was made from, and what it holds.

    Attributes:
        tokenizer: Fingerprint of the tokenizer.
        train: Fingerprint of the images that became the train split.
        test: The same for the test split.
        grid: The grid of each item.
        classes: Names of the classes.
        copies: Augmented copies of each training image, encoded beside the image itself.
        augmentation: How they differ from it.
    """

    tokenizer: str
    train: str
    test: str
    grid: Grid
    classes: tuple[str, ...]
    copies: int
    augmentation: Augmentation


@dataclass(frozen=True)
class CodeData:
    """An opened code dataset: ``train`` and ``test`` give batches of int64 symbols.

    Attributes:
        folder: Where it is; ``folder/tokenizer`` is the tokenizer that made it.
        key: What it was made from.
        train: The split to train on.
        test: The split to evaluate on.
    """

    folder: Path
    key: CodesKey
    train: IndexedSplit
    test: IndexedSplit


def encode_dataset(
    tokenizer: Any,
    images: ImageData,
    folder: Path,
    *,
    copies: int = 0,
    augmentation: Augmentation = Augmentation(),
    batch_size: int = 256,
    progress: Callable[[int, int | None], None] | None = None,
) -> CodeData:
    """Encode a dataset to a folder; one that is there already, of the same images and tokenizer, is opened.

    Args:
        tokenizer: An ImageTokenizer that can be saved (``save_pretrained``).
        images: What to encode.
        folder: Where to. It appears whole or not at all, and holds a copy of the tokenizer.
        copies: Augmented copies of each training image to encode beside the image itself. A small dataset
            needs them: a prior learns a few thousand code grids by heart.
        augmentation: How the copies differ from the image.
        batch_size: Images encoded at once.
        progress: Called with (images encoded, images in all or None).

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
    )
    if copies < 0 or bool(copies) != augmentation.active:
        raise InputError(
            f"{copies} copies with {augmentation}: augmented copies take both a number and a change"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / CODES_NAME).exists():
            raise InputError(f"{folder} is not empty and holds no codes; name another folder")
        _check_key(read_key(folder), key, folder)
        return open_codes(folder)
    with new_folder(folder) as pending:
        done, total = 0, None
        if images.train.length is not None and images.test.length is not None:
            total = images.train.length * (1 + copies) + images.test.length
        generator = torch.Generator().manual_seed(0)
        for name in SPLITS:
            folds = 1 + copies if name == "train" else 1
            rows: list[Batch] = []
            for batch in _folded(getattr(images, name), folds, augmentation, batch_size):
                rows.append(_encoded(tokenizer, batch, generator))
                done += len(batch)
                if progress:
                    progress(done, total)
            _store(rows, key, pending / name)
        tokenizer.save_pretrained(pending / "tokenizer")
        write_json(pending / CODES_NAME, asdict(key))
    return open_codes(folder)


def _folded(split: Split, folds: int, augmentation: Augmentation, batch_size: int) -> Iterator[Batch]:
    """Every image, and then again ``folds - 1`` times, each time changed in another way."""
    yield from split.ordered(batch_size)
    for fold in range(1, folds):
        for number, batch in enumerate(split.ordered(batch_size)):
            yield Batch(augmentation(batch.values, seed=hash((fold, number))), batch.labels)


def _encoded(tokenizer: ImageTokenizer, batch: Batch, generator: torch.Generator) -> Batch:
    device = getattr(tokenizer, "device", torch.device("cpu"))
    symbols = tokenizer.encode(batch.values.to(device), generator)
    return Batch(symbols.flatten(1).to("cpu", torch.int32), batch.labels)


def _store(rows: list[Batch], key: CodesKey, folder: Path) -> None:
    import datasets

    columns: dict[str, Any] = {"codes": torch.cat([batch.values for batch in rows]).numpy()}
    features: dict[str, Any] = {"codes": datasets.List(datasets.Value("int32"), length=key.grid.size)}
    if key.classes:
        columns["label"] = torch.cat([batch.labels for batch in rows if batch.labels is not None]).numpy()
        features["label"] = datasets.ClassLabel(names=list(key.classes))
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_dict(columns, features=datasets.Features(features)).save_to_disk(str(folder))
    finally:
        if bars:
            datasets.enable_progress_bars()


def open_codes(folder: Path) -> CodeData:
    """Open a code dataset.

    Raises:
        InputError: The folder is absent, lacks a part, is damaged, or holds no codes.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    key, splits = read_key(folder), []
    for name in SPLITS:
        try:
            rows = datasets.load_from_disk(str(folder / name)).with_format("numpy")
            codes = torch.from_numpy(np.asarray(rows[:]["codes"])).long().view(-1, *key.grid.shape)
            labels = torch.from_numpy(np.asarray(rows[:]["label"])).long() if key.classes else None
        except (DatasetsError, OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(
                f"{folder / name} is damaged ({error}); delete {folder} and encode again"
            ) from None
        splits.append(tensor_split(codes, labels))
    return CodeData(folder, key, *splits)


def read_key(folder: Path) -> CodesKey:
    """What the codes in a folder were made from."""
    if not folder.is_dir():
        raise InputError(f"codes folder {folder} does not exist; `rasterwise encode` makes one")
    key: CodesKey = from_json(CodesKey, read_json(folder / CODES_NAME), folder / CODES_NAME)
    if not (folder / "tokenizer" / CONFIG_NAME).exists():
        raise InputError(f"{folder} lacks its tokenizer/; delete it and encode again")
    return key


def _check_key(found: CodesKey, expected: CodesKey, folder: Path) -> None:
    mend = "name another folder, or delete this one"
    if found.tokenizer != expected.tokenizer:
        raise InputError(f"{folder} holds codes of another tokenizer ({found.tokenizer[:12]}…); {mend}")
    if found != expected:
        raise InputError(f"{folder} holds codes of other images, or of the same prepared otherwise; {mend}")
