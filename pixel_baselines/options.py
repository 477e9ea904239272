"""The options of ``rasterwise train pixel``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import DataConfig
from rasterwise.training.config import TrainingConfig

COMMAND = "train pixel --model "
"""Before the model's name: the name of its runs in run.json."""


Model = TypeVar("Model")


@dataclass(frozen=True)
class TrainPixel(Generic[Model]):
    """Train a pixel-level model on images, or on codes as their prior.

    Attributes:
        model: The model; --model NAME chooses which. --recipe NAME starts from a training worth repeating:
            other flags change it.
        output: The run's folder; with the tokenizer in it, it is a whole pipeline.
        data: The images.
        augmentation: How training images are changed at random.
        levels: Levels a subpixel: 2, 4, … 256.
        dynamic: Draw binary pixels as Bernoulli(intensity / 255) anew each time; takes --levels 2.
        palette: Pixels as the nearest of this many colours, found by k-means on the dataset (0: as levels).
        codes: Train on the codes in this folder, from `rasterwise encode`, instead of images. Codes have no
            order, so a model that can reads them as learned vectors; so it does palette colours.
        conditional: Tell the model the images' classes. Codes that have classes always do.
        training: How it is trained.
        label_dropout: Share of labels hidden in training, so that guidance has an unconditional model.
        resume: Go on with the run in this folder, as it was configured: nothing else needs to be given, and what
            is given must agree with it. The same command again does the same.
        dry_run: Print the resolved configuration, the parameters, the FLOPs of a step and the memory that it takes,
            and write nothing.
        force: Delete a run that is in the output folder and start anew.
        json: Print the report as JSON.
    """

    model: Model
    output: Path = Path("runs/pixel")
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    levels: int = 256
    dynamic: bool = False
    palette: int = 0
    codes: Path | None = None
    conditional: bool = False
    training: TrainingConfig = field(default_factory=TrainingConfig)
    label_dropout: float = 0.1
    resume: Path | None = None
    dry_run: bool = False
    force: bool = False
    json: bool = False
