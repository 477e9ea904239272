"""Any image dataset as uint8 batches: a Hub id, a folder of parquet files or images, or built-in digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from rasterwise.data.config import DataConfig
from rasterwise.data.parquet import ParquetRows
from rasterwise.data.rows import (
    BrokenImageError,
    Columns,
    Preparation,
    Reader,
    decode_stored,
    digest,
    read_split,
    some_rows,
)
from rasterwise.data.sources import _open_splits
from rasterwise.data.splits import Split
from rasterwise.data.streaming import StreamedSplit
from rasterwise.data.workers import worker_count
from rasterwise.errors import InputError
from rasterwise.images import GREY_MODES, Colour

if TYPE_CHECKING:
    import datasets
    from accelerate import Accelerator

IMAGES_LOOKED_AT = 64


@dataclass(frozen=True)
class ImageData:
    """An opened image dataset.

    Attributes:
        train: The split to train on.
        test: The split to evaluate on.
        shape: (channels, height, width) of every image.
        classes: Names of the classes; empty where the images have no labels.
        columns: Where in the dataset all this was found.
    """

    train: Split
    test: Split
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    columns: Columns


def open_images(config: DataConfig, progress: Callable[[int, int], None] | None = None) -> ImageData:
    """Open an image dataset.

    Images are decoded once and kept in memory where they take at most half of what is free; otherwise, and
    in streaming, they are decoded as they are needed.

    Args:
        config: Which, and how its images are prepared.
        progress: Called with (images decoded, images in all).

    Raises:
        InputError: There is no such dataset, folder, split or column; the dataset is empty; images
            differ in size and no size is given; an image does not decode, and they are not left out; a
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
            fingerprint = digest(rows.state, rows.hold_out, preparation)
            parts.append(StreamedSplit(rows, reader, fingerprint, workers, config.shuffle_buffer))
        else:
            parts.append(read_split(rows, reader, workers, progress, hold=not config.streaming))
    return ImageData(parts[0], parts[1], preparation.shape, classes, columns)


def broken_images(data: ImageData, accelerator: Accelerator) -> int:
    """How many broken images have been left out, by any process; all processes call this."""
    found = [(name, number) for name in ("train", "test") for number in getattr(data, name).broken]
    if accelerator.num_processes == 1:
        return len(found)
    from accelerate.utils import gather_object

    return len({tuple(one) for one in gather_object(found)})


# ---------------------------------------------------------------------------- opening


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
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    image = config.image_column or _only(images, "image", config.dataset, features)
    if image is None:
        raise InputError(
            f"dataset {config.dataset!r} has no image column; its columns are {', '.join(features)}"
        )
    if not isinstance(features[image], datasets.Image):
        raise InputError(f"column {image!r} holds {features[image]}, expected images")
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


# ---------------------------------------------------------------------------- images


def _look_at(rows: Any, column: str, config: DataConfig) -> list[Image.Image]:
    images: list[Image.Image] = []
    for row in some_rows(rows, IMAGES_LOOKED_AT):
        try:
            images.append(decode_stored(row, column, config.train_split))
        except BrokenImageError:
            if not config.skip_broken:
                raise
    if not images:
        found = "has no whole image" if len(rows) else "is empty"
        raise InputError(f"split {config.train_split!r} of dataset {config.dataset!r} {found}")
    return images


def _prepare(images: list[Image.Image], config: DataConfig) -> Preparation:
    grey = all(image.mode in GREY_MODES for image in images)
    colour: Colour = config.colour if config.colour != "auto" else ("grey" if grey else "rgb")
    if config.size is not None:
        return Preparation(colour, config.size, config.size, config.resample, True)
    sizes = sorted({image.size for image in images})
    if len(sizes) > 1:
        found = ", ".join(f"{width}×{height}" for width, height in sizes[:3])
        raise InputError(
            f"images of dataset {config.dataset!r} differ in size ({found}, …); choose one with --size"
        )
    return Preparation(colour, sizes[0][1], sizes[0][0], config.resample, False)
