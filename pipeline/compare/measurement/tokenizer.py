"""One cell of a comparison of tokenizers: the tokenizer, and a prior on its codes, trained and measured."""

from __future__ import annotations

import dataclasses
import math
import sys
import traceback
from pathlib import Path
from typing import Any, cast

from accelerate import Accelerator

from pipeline.compare.measurement.cell import (
    DONE,
    FAILED,
    OUT_OF_MEMORY,
    OVER_BUDGET,
    RECONSTRUCTIONS_NAME,
    RESULT_NAME,
    SAMPLES_NAME,
    SHOWN_SAMPLES,
    STOPPED,
    Figures,
)
from pipeline.compare.measurement.stage import Stage, StageReport, StoppedError, planned_steps, train_stage
from pipeline.compare.plan.budget import Budget, OverBudgetError
from pipeline.compare.plan.families import FAMILIES
from pipeline.compare.plan.settings import Size
from pipeline.compare.plan.tokenizers import LOSSES, TokenizerCell, TokenizerSettings
from pipeline.evaluation.frechet import REFERENCE_IMAGES
from pipeline.evaluation.network_features import network_distances
from pipeline.evaluation.reconstruction import evaluate_reconstruction
from pipeline.image_pipeline import ImagePipeline
from rasterwise.codes.encode import encode_dataset
from rasterwise.data.augmentation import augmented
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.indexed import first_of
from rasterwise.errors import InputError, NonFiniteError, is_out_of_memory
from rasterwise.files import write_json
from rasterwise.images import image_grid, save_image
from rasterwise.measure.pretrained_networks import DISTANCE_NETWORK, open_frozen_network
from rasterwise.measure.timing import chosen_device
from rasterwise.progress import Progress
from rasterwise.training.config import TrainingConfig
from rasterwise.training.likelihood import LikelihoodObjective, evaluate_likelihood
from stage1_vqvae import VQVAE
from stage1_vqvae.evaluation import evaluate_tokenizer, reconstruction_image
from stage1_vqvae.objective import LearnedTokenizerObjective
from stage2_prior import TransformerPrior, TransformerPriorConfig

START_SHARE = 1 / 3
"""Of a tokenizer's training: then the discriminator begins to take part."""


def measure_tokenizer(cell: TokenizerCell, settings: TokenizerSettings, folder: Path) -> Figures:
    """Train and measure a cell in this process; ``result.json`` is written unless the training was asked to stop."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        figures = {"status": DONE, **tokenizer_figures(cell, settings, folder)}
    except StoppedError:
        return {"status": STOPPED}
    except OverBudgetError as error:
        figures = {"status": OVER_BUDGET, "reason": str(error)}
    except Exception as error:
        if not is_out_of_memory(error) and not isinstance(error, InputError | NonFiniteError):
            traceback.print_exc(file=sys.stderr)
        status = OUT_OF_MEMORY if is_out_of_memory(error) else FAILED
        figures = {"status": status, "reason": f"{type(error).__name__}: {error}".splitlines()[0]}
    write_json(folder / RESULT_NAME, figures)
    return figures


def tokenizer_figures(cell: TokenizerCell, settings: TokenizerSettings, folder: Path) -> Figures:
    """All figures of a cell."""
    with Progress("reading images", "image") as progress:
        images = open_images(settings.data, progress)
    device = chosen_device(settings.device)
    tokenizer_report = train_stage(tokenizer_stage(cell, settings, images, folder), _half(settings))
    tokenizer = VQVAE.from_pretrained(folder / "tokenizer" / "run").to(device)
    with Progress("encoding", "image") as progress:
        codes = encode_dataset(tokenizer, images, folder / "codes", progress=progress)
    grid = tokenizer.grid(*images.shape)
    config = cast(TransformerPriorConfig, FAMILIES["vqvae-prior"].config(grid, Size.parse(settings.prior)))
    config = dataclasses.replace(config, tokenizer=tokenizer.fingerprint)
    stage = Stage(
        folder / "prior",
        lambda: LikelihoodObjective(TransformerPrior(config)),
        codes.train,
        lambda model, accelerator: evaluate_likelihood(model, codes.test, accelerator),
        _training(settings),
    )
    prior_report = train_stage(stage, _half(settings))
    pipeline = ImagePipeline(tokenizer, TransformerPrior.from_pretrained(folder / "prior" / "run").to(device))
    return {
        "bits_an_image": grid.size * math.log2(grid.levels),
        "tokenizer_parameters": sum(one.numel() for one in tokenizer.parameters()),
        **_stage_figures("tokenizer", tokenizer_report),
        **_stage_figures("prior", prior_report),
        **reconstruction_figures(tokenizer, images, folder),
        "nats_per_code": prior_report.test["nats_per_symbol"],
        "prior_bits_an_image": prior_report.test["nll_nats"] / math.log(2),
        **sample_figures(pipeline, images, settings, folder),
    }


def tokenizer_stage(
    cell: TokenizerCell, settings: TokenizerSettings, images: ImageData, folder: Path
) -> Stage:
    """The stage that trains the tokenizer; its discriminator takes part in the last two thirds of the steps."""
    config = cell.config(settings, images.shape[0])
    perceptual, adversarial = LOSSES[cell.loss]

    def stage(start: int) -> Stage:
        late = dataclasses.replace(adversarial, adversarial_start=start)
        return Stage(
            folder / "tokenizer",
            lambda: LearnedTokenizerObjective(VQVAE(config), perceptual, late),
            augmented(images.train, settings.augmentation),
            evaluate,
            _training(settings),
        )

    def evaluate(model: Any, accelerator: Accelerator) -> dict[str, float]:
        return evaluate_tokenizer(model, images.test, images.shape, accelerator)

    # Steps are timed with the discriminator.
    steps = planned_steps(stage(0), _half(settings)).steps
    return stage(int(steps * START_SHARE))


def reconstruction_figures(tokenizer: VQVAE, images: ImageData, folder: Path) -> Figures:
    """How good reconstructions are, and how even the use of codes."""
    found = evaluate_reconstruction(tokenizer, images)
    shown = next(iter(images.test.ordered(8))).values
    save_image(reconstruction_image(tokenizer, shown), folder / RECONSTRUCTIONS_NAME)
    distances = found["distances"]
    return {
        **{name: found.get(name) for name in ("psnr_db", "ssim", "codebook_usage", "codebook_perplexity")},
        "perceptual_distance": distances.get("perceptual_distance"),
        "reconstruction_frechet": distances.get("frechet_distance"),
        "reconstruction_frechet_floor": distances.get("frechet_distance_of_train_images"),
        "reconstruction_images": distances.get("images"),
    }


def sample_figures(
    pipeline: ImagePipeline, images: ImageData, settings: TokenizerSettings, folder: Path
) -> Figures:
    """Fréchet distances of samples and of test images to training images; None without the network."""
    with Progress("sampling", "image") as progress:
        drawn = pipeline.sample(settings.samples, seed=settings.seed, output="tensor", progress=progress)
    save_image(image_grid(drawn[:SHOWN_SAMPLES]), folder / SAMPLES_NAME)
    figures: Figures = {"sample_frechet": None, "sample_frechet_floor": None, "samples": len(drawn)}
    try:
        network = open_frozen_network(DISTANCE_NETWORK).to(pipeline.model.device)
    except InputError:
        return figures
    reference, held_out = first_of(images.train, REFERENCE_IMAGES).values, first_of(images.test, 0).values
    found = network_distances(network, reference, held_out, drawn.cpu())
    if found:
        figures |= {"sample_frechet": found.drawn, "sample_frechet_floor": found.floor}
    return figures


def _training(settings: TokenizerSettings) -> TrainingConfig:
    return TrainingConfig(
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        device=settings.device,
    )


def _half(settings: TokenizerSettings) -> Budget:
    return Budget.parse(settings.budget).half


def _stage_figures(name: str, report: StageReport) -> Figures:
    return {f"{name}_steps": report.steps, f"{name}_training_seconds": report.seconds}
