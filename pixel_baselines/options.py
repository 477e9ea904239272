"""The options of ``rasterwise train pixel``."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import Field

from rasterwise.command_line.options import TrainingOptions, in_order
from rasterwise.configuration import PixelLevels, Share, configuration
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import DataConfig
from rasterwise.training.config import TrainingConfig

COMMAND = "train pixel --model "
"""Before the model's name: the name of its runs in run.json."""


Model = TypeVar("Model")


@in_order
@configuration(kw_only=True)
class TrainPixel(TrainingOptions, Generic[Model]):
    """Train a pixel-level model on images, or on codes as their prior.

    Attributes:
        model: The model, which --model NAME chooses. --recipe NAME takes the values of a recorded training as
            defaults, which other flags change.
        output: The run's folder; with the tokenizer in it, it is a whole pipeline.
        data: The images.
        augmentation: How training images are changed at random.
        levels: Levels of a subpixel: 2, 4, … 256.
        dynamic: Draw binary pixels from Bernoulli(intensity / 255) anew each time; needs --levels 2.
        palette: Replace each pixel by the nearest of this many colours, which k-means finds in the dataset (0: use
            levels).
        codes: Train on the codes in this folder, from `rasterwise encode`, instead of images. Codes have no
            order, so a model that can read them as learned vectors does; palette colours likewise.
        conditional: Condition the model on the images' classes; on those of codes it always is.
        training: How it is trained.
        label_dropout: Share of labels hidden in training, so that guidance has an unconditional model.
    """

    model: Model
    output: Path = Path("runs/pixel")
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    levels: PixelLevels = 256
    dynamic: bool = False
    palette: Annotated[int, Field(ge=0, le=2**16)] = 0
    codes: Path | None = None
    conditional: bool = False
    training: TrainingConfig = field(default_factory=TrainingConfig)
    label_dropout: Share = 0.1
