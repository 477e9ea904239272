"""Which images a command reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rasterwise.errors import InputError
from rasterwise.files import from_json
from rasterwise.images import Resample

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are prepared.

    Attributes:
        dataset: "digits" (1,797 real 8×8 handwritten digits, built in), a folder of images (class folders
            or not) or of parquet files, or a Hugging Face dataset id. To encode and to evaluate also "same":
            what the tokenizer was trained on, prepared alike.
        subset: The configuration of a Hub dataset that has several.
        size: Resize the shorter side to this and crop the centre square; by default images stay as they
            are, and must then all be of one size.
        colour: Grey or RGB; auto is grey if the images looked at first are.
        resample: The filter for resizing, always antialiased.
        image_column: The column of images; found by its type unless given.
        label_column: The column of class labels; found by its type unless given.
        caption_column: The column of captions; found by its name and type unless given.
        train_split: Name of the split to train on.
        test_split: Name of the split to evaluate on; where the dataset has neither it nor "validation", one
            row in ten of the train split is set aside, always the same.
        streaming: Read images from their files as they are needed, and hold or copy none: from parquet
            files, here or on the Hub, and from folders of images. For datasets that do not fit on the disk.
        shuffle_buffer: Rows that streaming from parquet files holds to shuffle them, over all processes and
            workers together; more mix better.
        skip_broken: Leave out images that are missing or do not decode, and count them, instead of
            stopping at the first.
        workers: Processes that decode images ahead where they are not held in memory, and that augment
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
