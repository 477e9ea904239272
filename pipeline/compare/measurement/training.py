"""The training of a cell: a pixel-level model in one stage, a model of codes in two, each with half the budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from accelerate import Accelerator

from pipeline.compare.measurement.stage import Stage, StageReport, train_stage
from pipeline.compare.plan.budget import Budget
from pipeline.compare.plan.families import (
    FAMILIES,
    PRIOR_BATCH,
    batch_size,
    palette_colours,
    score_batch,
    vqvae_config,
)
from pipeline.compare.plan.settings import Cell, Settings
from pipeline.image_pipeline import ImagePipeline
from pipeline.models import model_classes, open_model
from pixel_baselines import PaletteConfig, PaletteTokenizer
from rasterwise.codes.encode import encode_dataset
from rasterwise.data.augmentation import augmented
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.indexed import first_of, tensor_split
from rasterwise.data.splits import Split
from rasterwise.measure.timing import chosen_device
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import CONFIG_NAME
from rasterwise.progress import Progress
from rasterwise.tokenizers.image import ImageTokenizer
from rasterwise.tokenizers.pixels import PixelTokenizer
from rasterwise.training.config import TrainingConfig
from rasterwise.training.likelihood import LikelihoodObjective, evaluate_likelihood
from stage1_vqvae import VQVAE
from stage1_vqvae.evaluation import evaluate_tokenizer
from stage1_vqvae.objective import LearnedTokenizerObjective


@dataclass(frozen=True)
class TrainedCell:
    """A cell's trained models.

    Attributes:
        pipeline: The tokenizer and the model.
        stages: A report for each stage: "model" and, if the tokenizer was trained, "tokenizer".
    """

    pipeline: ImagePipeline
    stages: dict[str, StageReport]


def cell_images(settings: Settings, resolution: int) -> ImageData:
    """The images at a resolution; the test split holds only those that are scored."""
    config = dataclasses.replace(settings.data, size=resolution)
    with Progress("reading images", "image") as progress:
        images = open_images(config, progress)
    test = first_of(images.test, settings.test_images)
    return dataclasses.replace(images, test=tensor_split(test.values, test.labels))


def train_cell(cell: Cell, settings: Settings, images: ImageData, folder: Path) -> TrainedCell:
    """Train a cell's models for the budget, or open them if they are trained.

    Args:
        cell: The cell.
        settings: The comparison's settings.
        images: Images at the cell's resolution.
        folder: The cell's folder.
    """
    family = FAMILIES[cell.family]
    train_split = augmented(images.train, settings.augmentation)
    training = TrainingConfig(
        batch_size=batch_size(family.symbols, cell.resolution),
        learning_rate=family.learning_rate,
        precision=settings.precision,
        seed=settings.seed,
        device=settings.device,
    )
    budget, device = Budget.parse(settings.budget), chosen_device(settings.device)
    if family.symbols != "codes":
        tokenizer = pixel_tokenizer(cell, images, folder).to(device)
        stage = model_stage(cell, tokenizer, folder / "model", train_split, images, training, encoded=False)
        report = train_stage(stage, budget)
        return TrainedCell(_pipeline(tokenizer, stage).to(device), {"model": report})
    stage = vqvae_stage(cell, folder / "vqvae", train_split, images, training)
    stages = {"tokenizer": train_stage(stage, budget.half)}
    vqvae = VQVAE.from_pretrained(stage.folder / "run").to(device)
    with Progress("encoding", "image") as progress:
        copies = settings.copies if settings.augmentation.active else 0
        codes = encode_dataset(
            vqvae,
            images,
            folder / "codes",
            copies=copies,
            augmentation=settings.augmentation,
            progress=progress,
        )
    encoded = dataclasses.replace(images, train=codes.train, test=codes.test)
    training = dataclasses.replace(training, batch_size=PRIOR_BATCH)
    stage = model_stage(cell, vqvae, folder / "model", codes.train, encoded, training, encoded=True)
    stages["model"] = train_stage(stage, budget.half)
    return TrainedCell(_pipeline(vqvae, stage).to(device), stages)


def pixel_tokenizer(cell: Cell, images: ImageData, folder: Path) -> ImageTokenizer:
    """A tokenizer to subpixels at full depth, or to ImageGPT's palette, fitted to the training images once."""
    if FAMILIES[cell.family].symbols == "subpixels":
        return PixelTokenizer()
    path = folder / "palette"
    if not (path / CONFIG_NAME).exists():
        colours = palette_colours(images.shape[0])
        palette = PaletteTokenizer(PaletteConfig(colours=colours, channels=images.shape[0]))
        palette.fit(images.train).save_pretrained(path)
    return PaletteTokenizer.from_pretrained(path)


def vqvae_stage(cell: Cell, folder: Path, split: Split, images: ImageData, training: TrainingConfig) -> Stage:
    """The first stage of a model of codes, which trains the tokenizer."""
    config = vqvae_config(images.shape[0], cell.resolution)
    return Stage(
        folder,
        lambda: LearnedTokenizerObjective(VQVAE(config)),
        split,
        lambda model, accelerator: evaluate_tokenizer(
            model, images.test, images.shape, accelerator, batch_size=16
        ),
        training,
    )


def model_stage(
    cell: Cell,
    tokenizer: ImageTokenizer,
    folder: Path,
    split: Split,
    data: ImageData,
    training: TrainingConfig,
    *,
    encoded: bool,
) -> Stage:
    """The stage that the autoregressive model is trained in, unconditionally.

    Args:
        cell: The cell, which names the model.
        tokenizer: Encodes images to the model's symbols.
        folder: The stage's folder.
        split: What to train on: images, or codes if they are encoded.
        data: The data whose test split is scored.
        training: How it is trained.
        encoded: Whether split and data hold symbols already.
    """
    grid = tokenizer.grid(data.shape[0], cell.resolution, cell.resolution)
    config = dataclasses.replace(
        FAMILIES[cell.family].config(grid, cell.size), tokenizer=tokenizer.fingerprint
    )
    model_class = next(one for one in model_classes().values() if one.config_class is type(config))
    build = cast(Callable[[Any], AutoregressiveModel], model_class)
    reading = None if encoded else tokenizer
    batch = score_batch(max(grid.height, grid.width))

    def evaluate(model: AutoregressiveModel, accelerator: Accelerator) -> dict[str, float]:
        return evaluate_likelihood(model, data.test, accelerator, tokenizer=reading, batch_size=batch)

    def objective() -> LikelihoodObjective:
        return LikelihoodObjective(build(config), reading)

    return Stage(folder, objective, split, evaluate, training)


def _pipeline(tokenizer: ImageTokenizer, stage: Stage) -> ImagePipeline:
    return ImagePipeline(tokenizer, open_model(stage.folder / "run"))
