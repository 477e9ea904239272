"""Any image dataset as uint8 batches: a Hub dataset, a folder of parquet files or images, or built-in digits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from rasterwise.data.columns import Columns, choose_columns, classes_of, refuse_other_columns
from rasterwise.data.config import DIGITS, NONE, DataConfig
from rasterwise.data.reading import (
    BrokenImageError,
    Preparation,
    Reader,
    decode_stored,
    digest,
    read_split,
)
from rasterwise.data.sources.caption_files import captions_of_folder
from rasterwise.data.sources.digits import open_digits
from rasterwise.data.sources.folders import listing_of, named, parquet_splits, split_of
from rasterwise.data.sources.hub import HUB, open_declared, open_hub
from rasterwise.data.sources.image_folder import open_image_folder
from rasterwise.data.sources.parquet import ParquetRows
from rasterwise.data.sources.rows import HoldOut, Rows
from rasterwise.data.sources.state import Contents, Origin
from rasterwise.data.splits import Split
from rasterwise.data.streaming import StreamedSplit
from rasterwise.data.workers import BrokenImages, worker_count
from rasterwise.errors import InputError
from rasterwise.images import GREY_MODES, Colour
from rasterwise.processes import is_main_process

if TYPE_CHECKING:
    from accelerate import Accelerator

IMAGES_LOOKED_AT = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageData:
    """An opened image dataset.

    Attributes:
        train: The split to train on.
        test: The split to evaluate on.
        shape: (channels, height, width) of every image.
        classes: Names of the classes; empty where the images have no labels.
        columns: Where in the dataset all this was found.
        found: Images in both splits as they are stored, broken ones among them.
        origin: Where they came from, and what tells these data from others.
        captioned: Whether batches have the images' captions.
    """

    train: Split
    test: Split
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    columns: Columns
    found: int = 0
    origin: Origin = field(default_factory=lambda: Origin(""))
    captioned: bool = False


def open_images(
    config: DataConfig, progress: Callable[[int, int], None] | None = None, *, captions: bool = False
) -> ImageData:
    """Open an image dataset.

    Images are decoded once and kept in memory where they take at most half of what is free; otherwise, and
    in streaming, they are decoded as they are needed.

    Args:
        config: Which, and how its images are prepared.
        progress: Called with (images decoded, images in all).
        captions: Read the images' captions too. Every image must then have one.

    Raises:
        InputError: There is no such dataset, folder, split or column; the dataset is empty; images
            differ in size and no size is given; an image does not decode, and they are not left out; a
            label is out of range; there are no captions, or an image has none.
    """
    splits, folders = _open(config, captions)
    train, test = _train_and_test(splits, config)
    columns = choose_columns(train.columns, config)
    if captions and columns.caption is None:
        raise InputError(
            f"dataset {config.dataset!r} has no captions; its columns are {', '.join(train.columns)}: choose with "
            "--caption-column"
        )
    reading = columns if captions else replace(columns, caption=None)
    refuse_other_columns(train, test, reading, config)
    train, test = (rows.select_columns(reading.read) for rows in (train, test))
    classes = classes_of(train, test, reading, config)
    preparation = _prepare(_look_at(train, columns.image, config), config)
    parts, contents = list[Split](), Contents()
    for name, rows in ((config.train_split, train), (config.test_split, test)):
        reader = Reader(name, reading, preparation, classes, config.skip_broken)
        workers = worker_count(config.workers)
        if config.streaming and isinstance(rows, ParquetRows):
            fingerprint = digest(*rows.state, preparation)
            parts.append(StreamedSplit(rows, reader, fingerprint, workers, config.shuffle_buffer))
        else:
            held = None if config.streaming else contents
            parts.append(read_split(rows, reader, workers, progress, contents=held))
    origin = Origin.of(config.dataset, folders, {**train.files, **test.files}, contents)
    found = len(train) + len(test)
    return ImageData(parts[0], parts[1], preparation.shape, classes.names, columns, found, origin, captions)


def broken_by_split(data: ImageData | None) -> dict[str, BrokenImages]:
    """The broken images that this process has found and left out."""
    return {} if data is None else {"train": data.train.broken, "test": data.test.broken}


def broken_images(data: ImageData, accelerator: Accelerator) -> int:
    """How many broken images have been left out, by any process; all processes call this."""
    found = [(name, index) for name, broken in broken_by_split(data).items() for index in broken]
    if accelerator.num_processes == 1:
        return len(found)
    from accelerate.utils import gather_object

    return len({tuple(one) for one in gather_object(found)})


def image_counts(data: ImageData | None, accelerator: Accelerator) -> dict[str, int]:
    """How many images were found, how many of them can be read, and how many are broken, if any; for a report.

    Of images that are read as they are needed, those that no process has come upon count as read. All processes
    call this.
    """
    if data is None:
        return {}
    broken = broken_images(data, accelerator)
    counts = {"images_found": data.found, "images_read": data.found - broken}
    return {**counts, **({"broken_images": broken} if broken else {})}


# ---------------------------------------------------------------------------- opening


def _open(config: DataConfig, captions: bool) -> tuple[Mapping[str, Rows], tuple[Path, ...]]:
    """The splits of a dataset by name, and the local folders that they lie in."""
    on_hub = config.dataset.startswith(HUB)
    for name in ("subset", "revision"):
        if (
            getattr(config, name) is not None
            and not on_hub
            and (name == "revision" or config.dataset == DIGITS)
        ):
            raise InputError(
                f"--{name} {getattr(config, name)} is for datasets on the Hub, not {config.dataset!r}"
            )
    if on_hub:
        return open_hub(config.dataset, config.subset, config.revision, streaming=config.streaming), ()
    if config.dataset == DIGITS:
        if Path(DIGITS).is_dir() and is_main_process():
            _log.warning("dataset 'digits' is the built-in one; the folder of that name here is './digits'")
        return {"train": open_digits()}, ()
    return _open_folder(Path(config.dataset), config, captions)


def _open_folder(
    root: Path, config: DataConfig, captions: bool
) -> tuple[Mapping[str, Rows], tuple[Path, ...]]:
    try:
        state = "" if root.is_dir() else "is a file" if root.exists() else "does not exist"
    except (OSError, ValueError) as error:  # too long, with a null character
        state = f"cannot be looked up ({error})"
    if not config.dataset:
        state = "has no name"
    if state:
        raise InputError(
            f"dataset folder {config.dataset[:200]!r} {state}; expected 'digits', a folder of images or parquet "
            "files, or a dataset on the Hugging Face Hub (OWNER/NAME)"
        )
    listing = listing_of(root)
    if not listing.images and not listing.parquet:
        found = f"holds {named(listing.unread)} alone" if listing.unread else "is empty"
        raise InputError(f"dataset folder {str(root)!r} {found}, expected images or parquet files")
    if listing.images and listing.parquet:
        raise InputError(
            f"dataset folder {str(root)!r} holds parquet files ({named(listing.parquet)}) and image files "
            f"({named(listing.images)}): name a folder that holds one or the other"
        )
    declared = open_declared(root, config.subset) if listing.parquet else None
    if config.subset is not None and declared is None:
        raise InputError(
            f"--subset {config.subset}: dataset folder {str(root)!r} declares no subsets in a README.md"
        )
    texts = captions_of_folder(listing, config.caption_column) if captions and listing.images else None
    unread = [name for name in listing.unread if texts is None or name not in texts.files]
    if unread and is_main_process():
        _log.warning("not read in %s: %s", root, named(unread))
    folders = (root, *dict.fromkeys(listing.linked))
    if declared is not None:
        return declared, folders
    if listing.images:
        with_classes = config.label_column != NONE
        return open_image_folder(listing, with_classes=with_classes, captions=texts), folders
    files = parquet_splits(listing)
    return {name: ParquetRows.open([str(root / file) for file in files[name]]) for name in files}, folders


def _train_and_test(splits: Mapping[str, Rows], config: DataConfig) -> tuple[Rows, Rows]:
    """The two splits that the configuration names; where there is only one to train on, a part of it is held out."""
    train_name = _find(splits, config.train_split)
    if train_name is None:
        raise InputError(
            f"dataset {config.dataset!r} has no split {config.train_split!r}, it has {', '.join(splits)}; "
            "name one with --train-split"
        )
    asked = (
        (config.test_split, "validation")
        if config.test_split == DataConfig.test_split
        else (config.test_split,)
    )
    found = (name for wanted in asked if (name := _find(splits, wanted)) not in (None, train_name))
    test_name = next(found, None)
    unread = [name for name in splits if name not in (train_name, test_name)]
    if unread and is_main_process():
        _log.warning("not read of dataset %s: the splits %s", config.name, ", ".join(unread))
    if test_name is not None:
        return splits[train_name], splits[test_name]
    if config.test_split != DataConfig.test_split:
        raise InputError(
            f"dataset {config.dataset!r} has no split {config.test_split!r} apart from the train split, "
            f"it has {', '.join(splits)}; name one with --test-split"
        )
    one_in = 5 if config.dataset == DIGITS else 10
    rows = splits[train_name]
    train, test = (rows.select(HoldOut(one_in, chosen)) for chosen in (False, True))
    if len(rows) and not len(test):
        raise InputError(f"{len(rows)} images are too few to hold some out for a test split; add more")
    return train, test


def _find(splits: Mapping[str, Rows], wanted: str) -> str | None:
    """A split by its name, or by another that it may have: val for validation."""
    if wanted in splits:
        return wanted
    meant = split_of(wanted)
    return next((name for name in splits if meant is not None and split_of(name) == meant), None)


# ---------------------------------------------------------------------------- images


def _look_at(rows: Rows, column: str, config: DataConfig) -> list[Image.Image]:
    images: list[Image.Image] = []
    for row in rows.sample(IMAGES_LOOKED_AT):
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
    seen = grey and config.colour == "auto"
    if config.size is not None:
        return Preparation(colour, config.size, config.size, config.resample, True, seen)
    sizes = sorted({image.size for image in images})
    if len(sizes) > 1:
        found = ", ".join(f"{width}×{height}" for width, height in sizes[:3])
        raise InputError(
            f"images of dataset {config.dataset!r} differ in size ({found}, …); choose one with --size"
        )
    return Preparation(colour, sizes[0][1], sizes[0][0], config.resample, False, seen)
