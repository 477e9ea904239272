"""What a comparison consists of: its cells, and the settings that all of them share."""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.compare.plan.budget import Budget
from rasterwise.configuration import (
    BatchSize,
    Count,
    CountOrZero,
    Depth,
    Pixels,
    Seed,
    Weight,
    Width,
    configuration,
)
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import DataConfig
from rasterwise.errors import InputError


@configuration()
class Size:
    """How large a model is.

    Attributes:
        width: Features.
        depth: Layers or blocks.

    Example:
        >>> Size.parse("64x4")
        Size(width=64, depth=4)
    """

    width: Width
    depth: Depth

    @classmethod
    def parse(cls, text: str) -> Size:
        """WIDTHxDEPTH; InputError for anything else."""
        found = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text)
        if not found:
            raise InputError(f"size is {text!r}, expected WIDTHxDEPTH, such as 64x4")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.width}x{self.depth}"


@configuration()
class Cell:
    """One model at one resolution.

    Attributes:
        family: Its name in ``FAMILIES``.
        resolution: Height and width of the images.
        size: Of the model.
    """

    family: str
    resolution: Pixels
    size: Size

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.family}-{self.resolution}-{self.size}"

    @classmethod
    def named(cls, name: str) -> Cell:
        """The cell whose folder has a name."""
        family, resolution, size = name.rsplit("-", 2)
        return cls(family, int(resolution), Size.parse(size))


@configuration()
class Settings:
    """What all cells of a comparison share.

    Attributes:
        data: The images; their size is each cell's resolution.
        augmentation: How training images are changed at random.
        copies: Augmented copies of each training image that are encoded for two-stage models, besides the image
            itself. Used only with an augmentation.
        budget: Of each cell's training: 90s, 10m, 1h, 500steps or 2e15flops. A two-stage model gives half of it
            to each stage. A time becomes the number of steps that fit into it, by a timing at the start of each
            cell. Evaluation and sampling come on top.
        precision: fp32, or autocast to bf16.
        seed: Of weights, data order, noise and classifiers.
        samples: Images drawn by each model.
        sample_batch: Images drawn at once.
        sample_limit: The time that sampling may take in each cell: 90s, 10m, 1h. Where it is too short, fewer
            images are drawn. Where it is too short for one batch, the time is extrapolated and marked as such.
        naive_sites: Symbols of the naive sampler that are timed; its time is extrapolated from them.
        parallel: Images drawn by fixed-point decoding, to count its network evaluations (0: none).
        test_images: Test images that are scored, the first of the split (0: all).
        threads: CPU threads of torch in a cell (0: torch's own choice).
        memory_gib: What a cell may take (0: nine tenths of what is free when it begins).
        inception: A file of torchvision's Inception v3 weights as safetensors. With it the Fréchet distance is also
            given in that network's features.
        device: auto takes a GPU where there is one.
    """

    data: DataConfig = field(default_factory=lambda: DataConfig(resample="box"))
    augmentation: Augmentation = field(default_factory=Augmentation)
    copies: CountOrZero = 10
    budget: str = "10m"
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: Seed = 0
    samples: Count = 64
    sample_batch: BatchSize = 16
    sample_limit: str = "10m"
    naive_sites: Count = 3
    parallel: CountOrZero = 0
    test_images: CountOrZero = 500
    threads: Annotated[int, Field(ge=0, le=4096)] = 0
    memory_gib: Weight = 0.0
    inception: Path | None = None
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        Budget.parse(self.budget)
        if Budget.parse(self.sample_limit).unit != "seconds":
            raise InputError(f"sample_limit is {self.sample_limit!r}, expected a time: 90s, 10m or 1h")

    def check(self) -> None:
        """Raise InputError unless the files that the settings name are there."""
        if self.inception is not None and not self.inception.is_file():
            raise InputError(
                f"inception weights {self.inception} do not exist, expected torchvision's inception_v3 weights "
                "as a .safetensors file"
            )

    @property
    def sample_seconds(self) -> float:
        """``sample_limit`` in seconds."""
        return Budget.parse(self.sample_limit).amount
