"""Any image dataset as uint8 batches: a Hub id, a folder of parquet files or pictures, or built-in digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from rasterwise.errors import InputError
from rasterwise.files import from_json
from rasterwise.images import GREY_MODES, Colour, Resample
from rasterwise.loading import worker_count
from rasterwise.parquet import Aside, ParquetRows
from rasterwise.reading import (
    BrokenPictureError,
    Columns,
    IndexedRows,
    Preparation,
    Reader,
    decode_stored,
    digest,
    read_split,
    some_rows,
)
from rasterwise.splits import Split
from rasterwise.streaming import StreamedSplit

if TYPE_CHECKING:
    import datasets
    from accelerate import Accelerator

PICTURES_LOOKED_AT = 64


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they are prepared.

    Attributes:
        dataset: "digits" (1,797 real 8×8 handwritten digits, built in), a folder of pictures (class folders
            or not) or of parquet files, or a Hugging Face dataset id. To encode and to evaluate also "same":
            what the tokenizer was trained on, prepared alike.
        subset: The configuration of a Hub dataset that has several.
        size: Resize the shorter side to this and crop the centre square; by default pictures stay as they
            are, and must then all be of one size.
        colour: Grey or RGB; auto is grey if the pictures looked at first are.
        resample: The filter for resizing, always antialiased.
        image_column: The column of pictures; found by its type unless given.
        label_column: The column of class labels; found by its type unless given.
        caption_column: The column of captions; found by its name and type unless given.
        train_split: Name of the split to train on.
        test_split: Name of the split to evaluate on; where the dataset has neither it nor "validation", one
            row in ten of the train split is set aside, always the same.
        streaming: Read pictures from their files as they are needed, and hold or copy none: from parquet
            files, here or on the Hub, and from folders of pictures. For datasets that do not fit on the disk.
        shuffle_buffer: Rows that streaming from parquet files holds to shuffle them, over all processes and
            workers together; more mix better.
        skip_broken: Leave out pictures that are missing or do not decode, and count them, instead of
            stopping at the first.
        workers: Processes that decode pictures ahead where they are not held in memory, and that augment
            them; by default 1, 2 or 4, or none where there are no cores to spare.
    """

    dataset: str = "digits"
    subset: str | None = None
    size: int | None = None
    colour: Literal["auto", "grey", "rgb"] = "auto"
    resample: Resample = "bicubic"
    image_column: str | None = None
    label_column: str | None = None
    caption_column: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    streaming: bool = False
    shuffle_buffer: int = 2048
    skip_broken: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise InputError(f"size is {self.size}, expected 1 or more")
        if self.shuffle_buffer < 1:
            raise InputError(f"shuffle_buffer is {self.shuffle_buffer}, expected 1 or more")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers is {self.workers}, expected 0 (none) or more")


SAME = "same"


def same_data(config: DataConfig, trained_on: dict[str, Any]) -> DataConfig:
    """The configuration, with dataset "same" resolved to what a tokenizer was trained on.

    Args:
        config: As given; how it reads them (``streaming``, ``skip_broken``, ``workers``) stays.
        trained_on: The tokenizer's; see ``Pretrained``.
    """
    if config.dataset != SAME:
        return config
    if not trained_on:
        raise InputError("the tokenizer does not say what it was trained on; name the images with --dataset")
    trained: DataConfig = from_json(DataConfig, trained_on, "what the tokenizer was trained on")
    return replace(
        trained,
        streaming=config.streaming or trained.streaming,
        skip_broken=config.skip_broken or trained.skip_broken,
        workers=config.workers,
    )


@dataclass(frozen=True)
class ImageData:
    """An opened image dataset.

    Attributes:
        train: The split to train on.
        test: The split to evaluate on.
        shape: (channels, height, width) of every picture.
        classes: Names of the classes; empty where the pictures have no labels.
        columns: Where in the dataset all this was found.
    """

    train: Split
    test: Split
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    columns: Columns


def open_images(config: DataConfig, progress: Callable[[int, int], None] | None = None) -> ImageData:
    """Open an image dataset.

    Pictures are decoded once and kept in memory where they take at most half of what is free; otherwise, and
    in streaming, they are decoded as they are needed.

    Args:
        config: Which, and how its pictures are prepared.
        progress: Called with (pictures decoded, pictures in all).

    Raises:
        InputError: There is no such dataset, folder, split or column; the dataset is empty; pictures
            differ in size and no size is given; a picture does not decode, and they are not left out; a
            label is out of range.
    """
    train, test = _open_splits(config)
    columns = _find_columns(train.features, config)
    classes = _classes(train.features, columns)
    preparation = _prepare(_look_at(train, columns.image, config), config)
    parts: list[Split] = []
    for name, rows in ((config.train_split, train), (config.test_split, test)):
        reader = Reader(name, columns, preparation, len(classes), config.skip_broken)
        workers = worker_count(config.workers)
        if isinstance(rows, ParquetRows):
            fingerprint = digest(rows.state, rows.aside, preparation)
            parts.append(StreamedSplit(rows, reader, fingerprint, workers, config.shuffle_buffer))
        else:
            parts.append(read_split(rows, reader, workers, progress, hold=not config.streaming))
    return ImageData(parts[0], parts[1], preparation.shape, classes, columns)


def broken_pictures(data: ImageData, accelerator: Accelerator) -> int:
    """How many broken pictures have been left out, by any process; all processes call this."""
    found = [(name, number) for name in ("train", "test") for number in getattr(data, name).broken]
    if accelerator.num_processes == 1:
        return len(found)
    from accelerate.utils import gather_object

    return len({tuple(one) for one in gather_object(found)})


# ---------------------------------------------------------------------------- opening


def _open_splits(config: DataConfig) -> tuple[Any, Any]:
    if config.dataset == "digits":
        return _digits()
    splits = _load(config)
    if config.train_split not in splits:
        raise InputError(
            f"dataset {config.dataset!r} has no split {config.train_split!r}, it has {', '.join(splits)}; "
            "name one with --train-split"
        )
    train = splits[config.train_split]
    test_name = next((name for name in (config.test_split, "validation") if name in splits), None)
    if test_name and test_name != config.train_split:
        return train, splits[test_name]
    if config.test_split != DataConfig.test_split:
        raise InputError(
            f"dataset {config.dataset!r} has no split {config.test_split!r} apart from the train split, "
            f"it has {', '.join(splits)}; name one with --test-split"
        )
    return _set_aside(train, one_in=10)


def _load(config: DataConfig) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    path = Path(config.dataset).expanduser()
    looks_local = path.exists() or config.dataset.startswith((".", "/", "~")) or config.dataset.count("/") > 1
    if looks_local and not path.is_dir():
        raise InputError(f"dataset folder {config.dataset!r} does not exist or is no folder")
    if looks_local and not any(file.is_file() for file in path.rglob("*")):
        raise InputError(f"dataset folder {config.dataset!r} is empty, expected pictures or parquet files")
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        source = str(path.resolve()) if looks_local else config.dataset
        if config.streaming:
            builder = datasets.load_dataset_builder(source, config.subset)
            files = {str(name): list(files) for name, files in (builder.config.data_files or {}).items()}
            if files and all(file.endswith(".parquet") for some in files.values() for file in some):
                return {name: ParquetRows.open(some, builder.info.features) for name, some in files.items()}
            if not looks_local or builder.info.builder_name != "imagefolder":
                raise InputError(
                    f"dataset {config.dataset!r} cannot be streamed: that takes parquet files or a folder of "
                    "pictures; leave out --streaming"
                )
        loaded = datasets.load_dataset(source, config.subset)
        return {name: IndexedRows(_undecoded(rows)) for name, rows in loaded.items()}
    except InputError:
        raise
    except (DatasetsError, HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "no data" in reason:
            raise InputError(f"dataset {config.dataset!r} is empty, expected pictures") from None
        raise InputError(
            f"dataset {config.dataset!r} cannot be opened ({reason}); expected 'digits', a folder of pictures "
            "or parquet files, or a Hugging Face dataset id"
        ) from None
    finally:
        if bars:
            datasets.enable_progress_bars()


def _undecoded(rows: Any) -> Any:
    """The rows with pictures as their files' bytes, so that we decode them and can name one that does not."""
    import datasets

    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows


def _digits() -> tuple[Any, Any]:
    """scikit-learn's copy of the UCI digits (E. Alpaydin, C. Kaynak): 1,797 of them, 8×8, 17 greys."""
    import datasets
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = [Image.fromarray((image * 255 / 16).round().astype("uint8")) for image in digits.images]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(digit) for digit in range(10)])}
    )
    rows = datasets.Dataset.from_dict({"image": pictures, "label": digits.target.tolist()}, features=features)
    return _set_aside(IndexedRows(_undecoded(rows)), one_in=5)


def _set_aside(rows: Any, one_in: int) -> tuple[Any, Any]:
    """Split off one of every ``one_in`` rows: the same ones in memory and streamed."""
    kept, aside = Aside(one_in, False), Aside(one_in, True)
    train, test = (
        rows.select(part)
        if isinstance(rows, ParquetRows)
        else IndexedRows(rows.table, np.flatnonzero(part.mask(0, len(rows))))
        for part in (kept, aside)
    )
    if len(rows) and not len(test):
        raise InputError(f"{len(rows)} pictures are too few to set some aside for a test split; add more")
    return train, test


# ---------------------------------------------------------------------------- columns


def _find_columns(features: datasets.Features | None, config: DataConfig) -> Columns:
    import datasets

    if not features:
        raise InputError(
            f"dataset {config.dataset!r} does not say what its columns hold; expected an image column"
        )
    for flag in ("image_column", "label_column", "caption_column"):
        name = getattr(config, flag)
        if name is not None and name not in features:
            raise InputError(f"--{flag.replace('_', '-')} {name!r}: the columns are {', '.join(features)}")
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    image = config.image_column or _only(pictures, "image", config.dataset, features)
    if image is None:
        raise InputError(
            f"dataset {config.dataset!r} has no image column; its columns are {', '.join(features)}"
        )
    if not isinstance(features[image], datasets.Image):
        raise InputError(f"column {image!r} holds {features[image]}, expected pictures")
    label = config.label_column or _only(labels, "label", config.dataset, features)
    if label is not None and not isinstance(features[label], datasets.ClassLabel):
        raise InputError(
            f"column {label!r} holds {features[label]}, expected class labels (a ClassLabel feature)"
        )
    strings = [name for name, feature in features.items() if getattr(feature, "dtype", None) == "string"]
    likely = [name for name in strings if name in ("caption", "text", "captions", "description", "prompt")]
    return Columns(image, label, config.caption_column or (likely[0] if likely else None))


def _only(names: list[str], what: str, dataset: str, features: Any) -> str | None:
    if len(names) > 1 and what not in names:
        raise InputError(
            f"dataset {dataset!r} has {what} columns {', '.join(names)}; choose with --{what}-column"
        )
    return what if what in names else (names[0] if names else None)


def _classes(features: Any, columns: Columns) -> tuple[str, ...]:
    return tuple(features[columns.label].names) if columns.label else ()


# ---------------------------------------------------------------------------- pictures


def _look_at(rows: Any, column: str, config: DataConfig) -> list[Image.Image]:
    pictures: list[Image.Image] = []
    for row in some_rows(rows, PICTURES_LOOKED_AT):
        try:
            pictures.append(decode_stored(row, column, config.train_split))
        except BrokenPictureError:
            if not config.skip_broken:
                raise
    if not pictures:
        found = "has no whole picture" if len(rows) else "is empty"
        raise InputError(f"split {config.train_split!r} of dataset {config.dataset!r} {found}")
    return pictures


def _prepare(pictures: list[Image.Image], config: DataConfig) -> Preparation:
    grey = all(picture.mode in GREY_MODES for picture in pictures)
    colour: Colour = config.colour if config.colour != "auto" else ("grey" if grey else "rgb")
    if config.size is not None:
        return Preparation(colour, config.size, config.size, config.resample, True)
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        found = ", ".join(f"{width}×{height}" for width, height in sizes[:3])
        raise InputError(
            f"pictures of dataset {config.dataset!r} differ in size ({found}, …); choose one with --size"
        )
    return Preparation(colour, sizes[0][1], sizes[0][0], config.resample, False)
