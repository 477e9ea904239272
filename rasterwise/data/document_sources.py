"""Datasets of interleaved documents: a file, a folder with a file for each split, or made of the built-in digits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from rasterwise.configuration import Count, Seed, configuration
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import DIGITS, DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.data.digit_documents import TASKS, DigitDocuments, Task
from rasterwise.data.documents import DOCUMENT_SUFFIXES, StoredDocument, open_stored, read_documents
from rasterwise.data.indexed import first_of
from rasterwise.data.reading import Preparation, digest
from rasterwise.data.sources.folders import split_of
from rasterwise.data.sources.rows import HoldOut
from rasterwise.errors import InputError
from rasterwise.images import Colour, Resample, is_grey

PreparedDocument: TypeAlias = tuple[str | Tensor, ...]
"""Texts, and images uint8 ``(C, H, W)``, all of one shape."""

HELD_OUT_ONE_IN = 10
"""Of a file without a test split, one document in so many is held out, always the same."""


class Documents(Protocol):
    """The documents of one split, in order."""

    @property
    def fingerprint(self) -> str:
        """Hex digest, equal only for the same documents, prepared alike and in the same order."""
        ...

    def __len__(self) -> int: ...

    def read(self) -> Iterator[PreparedDocument]:
        """All of them."""
        ...


@dataclass(frozen=True)
class DocumentSplits:
    """An opened dataset of documents.

    Attributes:
        train: The documents to train on.
        test: The documents to evaluate on.
        shape: (channels, height, width) of every image.
        folder: That the files lie in; None where they were made.
    """

    train: Documents
    test: Documents
    shape: tuple[int, int, int]
    folder: Path | None = None


@configuration()
class DigitDocumentsConfig:
    """Documents that are made of the built-in digits, of other digits for each split.

    Attributes:
        train_documents: How many to train on.
        test_documents: How many to evaluate on.
        tasks: Which, all equally often: name an image, draw a digit, the sum of two drawn digits written and drawn,
            invert or rotate an image.
        largest_sum: The largest sum, 9 for sums of one figure; up to 18.
        document_seed: Another seed gives other documents.
    """

    train_documents: Count = 20_000
    test_documents: Count = 1000
    tasks: tuple[Task, ...] = TASKS
    largest_sum: Annotated[int, Field(ge=0, le=18)] = 9
    document_seed: Seed = 0


@dataclass(frozen=True)
class MadeDocuments:
    """Documents made of digits.

    Attributes:
        documents: Without end.
        length: How many of them.
        fingerprint: See ``Documents``.
    """

    documents: DigitDocuments
    length: int
    fingerprint: str

    def __len__(self) -> int:
        return self.length

    def read(self) -> Iterator[PreparedDocument]:
        for index in range(self.length):
            document = self.documents[index]
            yield document.prompt + document.answer


@dataclass(frozen=True)
class FileDocuments:
    """Documents of a file.

    Attributes:
        path: The file.
        preparation: Of its images.
        hold_out: Which of its documents; None for all.
        length: How many.
        fingerprint: See ``Documents``.
    """

    path: Path
    preparation: Preparation
    hold_out: HoldOut | None
    length: int
    fingerprint: str

    def __len__(self) -> int:
        return self.length

    def read(self) -> Iterator[PreparedDocument]:
        for document in _chosen(self.path, self.hold_out):
            yield _prepared(document, self.preparation)

    @classmethod
    def checked(
        cls,
        path: Path,
        preparation: Preparation,
        hold_out: HoldOut | None,
        progress: Callable[[int, int | None], None] | None,
    ) -> FileDocuments:
        """The documents of a file, every one of which has been read: whatever is wrong is found before any is used."""
        hashed, length = hashlib.sha256(repr(preparation).encode()), 0
        for length, document in enumerate(_chosen(path, hold_out), 1):
            for part in _prepared(document, preparation):
                content = part.encode() if isinstance(part, str) else part.numpy().tobytes()
                hashed.update(f"{type(part).__name__} {len(content)} ".encode() + content)
            hashed.update(b"end ")
            if progress:
                progress(length, None)
        return cls(path, preparation, hold_out, length, hashed.hexdigest())


def open_document_files(
    source: Path,
    *,
    size: int | None = None,
    colour: Colour | None = None,
    resample: Resample = "bicubic",
    progress: Callable[[int, int | None], None] | None = None,
) -> DocumentSplits:
    """Open a file of documents, or a folder with one for each split.

    Args:
        source: A file of JSON lines or a parquet file, of which some documents are held out to evaluate on; or a folder
            with such files named train and test.
        size: Resize the shorter side of images to this and crop the centre square; None: all must be of one size.
        colour: What images become; None: grey where the first one is.
        resample: The filter for resizing.
        progress: Called with the documents read.

    Raises:
        InputError: The files are others, or damaged; a document is not as ``document_in`` expects; an image is of
            another size, or does not decode. The message names the line or row.
    """
    files = _files(source)
    preparation = _preparation(files["train"], size, colour, resample)
    if "test" in files:
        held_out: dict[str, HoldOut | None] = {"train": None, "test": None}
    else:
        files["test"] = files["train"]
        held_out = {name: HoldOut(HELD_OUT_ONE_IN, name == "test") for name in files}
    train, test = (
        FileDocuments.checked(files[name], preparation, held_out[name], progress)
        for name in ("train", "test")
    )
    if not len(train) or not len(test):
        raise InputError(
            f"{source} has {len(train)} documents to train on and {len(test)} to evaluate on; add more"
        )
    return DocumentSplits(train, test, preparation.shape, files["train"].parent)


def make_digit_documents(
    config: DigitDocumentsConfig, *, copies: int = 0, augmentation: Augmentation = Augmentation()
) -> DocumentSplits:
    """Documents of the built-in digits; each split's are made of its own images.

    Args:
        config: Which.
        copies: Augmented copies of each training digit that documents draw from, besides the digit itself.
        augmentation: How the copies differ from it.
    """
    data = open_images(DataConfig(dataset=DIGITS))
    parts = []
    for name, count in (("train", config.train_documents), ("test", config.test_documents)):
        batch = first_of(getattr(data, name), 0)
        assert batch.labels is not None, "digits have labels"
        images, labels, folds = batch.values, batch.labels, copies if name == "train" else 0
        indices = list(range(len(images)))
        changed = [augmentation(images, seed=fold, indices=indices) for fold in range(1, folds + 1)]
        made = DigitDocuments(
            torch.cat([images, *changed]),
            labels.repeat(1 + folds),
            seed=config.document_seed,
            tasks=config.tasks,
            largest_sum=config.largest_sum,
        )
        state = (getattr(data, name).fingerprint, folds, augmentation, count)
        described = (config.document_seed, config.tasks, config.largest_sum)
        parts.append(MadeDocuments(made, count, digest(*state, *described)))
    return DocumentSplits(parts[0], parts[1], data.shape)


def prepared_image(image: object, where: str, preparation: Preparation) -> Tensor:
    """A stored image as uint8 ``(C, H, W)``; InputError names where it is from if it cannot be one."""
    try:
        return preparation(open_stored(image, where))  # type: ignore[arg-type]
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith(where) else f"{where}: an image {message}") from None


def _prepared(document: StoredDocument, preparation: Preparation) -> PreparedDocument:
    return tuple(
        part if isinstance(part, str) else prepared_image(part, document.where, preparation)
        for part in document.content
    )


def _chosen(path: Path, hold_out: HoldOut | None) -> Iterator[StoredDocument]:
    for number, document in enumerate(read_documents(path)):
        if hold_out is None or hold_out.mask(number, number + 1)[0]:
            yield document


def _files(source: Path) -> dict[str, Path]:
    """The files of the splits, train among them."""
    expected = (
        f"expected a file of documents ({' or '.join(DOCUMENT_SUFFIXES)}), or a folder with train and test"
    )
    if not source.is_dir():
        if not source.exists():
            raise InputError(f"documents {source} do not exist, {expected}")
        return {"train": source}
    found = sorted(path for path in source.iterdir() if path.suffix in DOCUMENT_SUFFIXES and path.is_file())
    if len(found) == 1:
        return {"train": found[0]}
    files: dict[str, Path] = {}
    for path in found:
        split = split_of(path.stem)
        name = (
            "test"
            if split == "validation" and not any(split_of(one.stem) == "test" for one in found)
            else split
        )
        if name is None or name in files:
            names = ", ".join(one.name for one in found)
            raise InputError(f"folder {source} holds {names}, {expected}")
        files[name] = path
    if "train" not in files:
        raise InputError(f"folder {source} holds no documents to train on, {expected}")
    return files


def _preparation(path: Path, size: int | None, colour: Colour | None, resample: Resample) -> Preparation:
    """How images are prepared; the first one says what is not given."""
    first = next(
        (
            open_stored(part, document.where)
            for document in read_documents(path)
            for part in document.content
            if not isinstance(part, str)
        ),
        None,
    )
    if first is None:
        raise InputError(f"the documents of {path} hold no image")
    found: Colour = colour or ("grey" if is_grey(first) else "rgb")
    height, width = (size, size) if size else (first.height, first.width)
    return Preparation(
        found, height, width, resample, size is not None, grey_seen=found == "grey" and not colour
    )
