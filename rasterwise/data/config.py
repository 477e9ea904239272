"""Which images a command reads."""

from __future__ import annotations

import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from rasterwise.configuration import Count, Pixels, configuration
from rasterwise.data.sources.hub import HUB
from rasterwise.errors import InputError
from rasterwise.files import from_json
from rasterwise.images import Resample

DIGITS = "digits"
"""The built-in dataset."""
SAME = "same"
"""What the tokenizer was trained on: as a dataset, and as a split of it."""
NONE = "none"
"""As a label column: no labels are read."""

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)


def _text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@configuration()
class DataConfig:
    """Which images, and how they are prepared.

    Attributes:
        dataset: "digits" (1,797 real 8×8 handwritten digits, built in), a folder of images or of parquet files, or
            a Hugging Face dataset (OWNER/NAME). In a folder of images, folders are classes, whatever their names; where
            all top folders are named as splits are (train, val, test, …), they are the splits. To encode and to
            evaluate also "same": what the tokenizer was trained on, prepared alike. A path is stored whole.
        subset: The configuration of a Hub dataset that has several.
        revision: Branch, tag or commit of a Hub dataset.
        size: Resize the shorter side to this and crop the centre square; by default images stay as they
            are, and must then all be of one size.
        colour: Grey or RGB; auto is grey if the images looked at first are.
        resample: The filter for resizing, always antialiased.
        image_column: The column of images; found by its type unless given.
        label_column: The column of classes: class labels, or integers, strings or booleans, of which each value is
            one. By default the one of class labels, or one named "label", "labels" or "class"; "none" reads none.
        caption_column: The column of captions; found by its name and type unless given.
        train_split: Name of the split to train on.
        test_split: Name of the split to evaluate on; where the dataset has neither it nor "validation", one
            row in ten of the train split is held out, always the same.
        streaming: Read images from their files as they are needed, and hold or copy none: from parquet
            files, here or on the Hub, and from folders of images. For datasets that do not fit on the disk.
        shuffle_buffer: Rows that streaming from parquet files holds to shuffle them, over all processes and
            workers together; more mix better.
        skip_broken: Leave out images that are missing or do not decode, and count them, instead of
            stopping at the first.
        workers: Processes that decode images ahead where they are not held in memory, and that augment
            them; by default 1, 2 or 4, or none where there are no cores to spare.
    """

    dataset: Annotated[str, BeforeValidator(_text)] = DIGITS
    subset: str | None = None
    revision: str | None = None
    size: Pixels | None = None
    colour: Literal["auto", "grey", "rgb"] = "auto"
    resample: Resample = "bicubic"
    image_column: str | None = None
    label_column: str | None = None
    caption_column: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    streaming: bool = False
    shuffle_buffer: Count = 2048
    skip_broken: bool = False
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", _resolved(self.dataset))

    @property
    def name(self) -> str:
        """The dataset's name without the folders that it lies in: what a model card may say."""
        return self.dataset.removeprefix(HUB) if self.dataset.startswith(HUB) else Path(self.dataset).name


def _resolved(dataset: str) -> str:
    """A name that means the same from everywhere: an absolute path, an address on the Hub, or a built-in dataset's.

    A path is never taken for an address: neither one that exists, nor one in a folder that does, nor a bare name.
    What can be no path stays as it is, and is refused when it is opened.
    """
    if dataset in ("", DIGITS, SAME) or dataset.startswith(HUB):
        return dataset
    try:
        path = Path(dataset).expanduser()
        if not path.exists() and HUB_ID.fullmatch(dataset) and not path.parent.exists():
            return HUB + dataset
        return str(path.resolve())
    except (OSError, RuntimeError, ValueError):  # too long, of no user, with a null character
        return dataset


SAME_DATA = DataConfig(dataset=SAME, train_split=SAME, test_split=SAME)
"""What a tokenizer was trained on, split as then."""

HOW_READ = ("streaming", "skip_broken", "shuffle_buffer", "workers")
"""Fields that say how images are read, not which."""


def same_data(config: DataConfig, trained_on: dict[str, Any]) -> DataConfig:
    """The configuration, with dataset "same" resolved to what a tokenizer was trained on, prepared alike.

    Args:
        config: As given. How it reads them (``HOW_READ``) stays, and so do the splits that it names.
        trained_on: The tokenizer's; see ``Pretrained``.

    Raises:
        InputError: The tokenizer does not say what it was trained on; or the configuration says how to prepare the
            images, which only those of a dataset that it names can be.
    """
    if config.dataset != SAME:
        return replace(config, **{name: getattr(DataConfig, name) for name in _splits_as_trained(config)})
    for option in fields(DataConfig):
        if option.name in ("dataset", "train_split", "test_split", *HOW_READ):
            continue
        if getattr(config, option.name) != option.default:
            flag = "--" + option.name.replace("_", "-")
            raise InputError(
                f"{flag} {getattr(config, option.name)} takes --dataset: without it, the images are those that the "
                "tokenizer was trained on, prepared alike"
            )
    if not trained_on:
        raise InputError("the tokenizer does not say what it was trained on; name the images with --dataset")
    trained: DataConfig = from_json(DataConfig, trained_on, "what the tokenizer was trained on")
    same = _splits_as_trained(config)
    return replace(
        trained,
        streaming=config.streaming or trained.streaming,
        skip_broken=config.skip_broken or trained.skip_broken,
        shuffle_buffer=config.shuffle_buffer,
        workers=config.workers,
        train_split=trained.train_split if "train_split" in same else config.train_split,
        test_split=trained.test_split if "test_split" in same else config.test_split,
    )


def _splits_as_trained(config: DataConfig) -> list[str]:
    return [name for name in ("train_split", "test_split") if getattr(config, name) == SAME]
