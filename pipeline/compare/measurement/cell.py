"""One cell of a comparison, trained and measured in a process of its own."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.compare.measurement.costs import (
    Drawn,
    draw_images,
    flops_an_image,
    naive_seconds_an_image,
    score_seconds_an_image,
)
from pipeline.compare.measurement.memory import limit_memory
from pipeline.compare.measurement.stage import StoppedError
from pipeline.compare.measurement.training import TrainedCell, cell_images, train_cell
from pipeline.compare.plan.budget import OverBudgetError
from pipeline.compare.plan.families import FAMILIES, score_batch
from pipeline.compare.plan.settings import Cell, Settings
from pipeline.evaluation.coverage import classifier_of, coverage
from pipeline.evaluation.frechet import REFERENCE_IMAGES, distances
from pipeline.evaluation.inception import inception_distances
from pipeline.evaluation.linear_probe import LayeredModel, probe_layers
from pipeline.image_pipeline import ImagePipeline
from rasterwise.data.dataset import ImageData
from rasterwise.data.indexed import first_of
from rasterwise.errors import InputError, NonFiniteError, is_out_of_memory
from rasterwise.files import write_json
from rasterwise.images import image_grid, save_image
from rasterwise.measure.metrics import psnr_db
from rasterwise.measure.timing import chosen_device, with_peak_memory
from rasterwise.symbols.likelihoods import bits_per_dim

RESULT_NAME = "result.json"
SAMPLES_NAME = "samples.png"
RECONSTRUCTIONS_NAME = "reconstructions.png"
SHOWN_SAMPLES = 16
SHOWN_PAIRS = 8
PROBED_IMAGES = 5000

STOPPED = "stopped"
DONE = "done"
OUT_OF_MEMORY = "did not fit in memory"
OVER_BUDGET = "did not fit in the budget"
FAILED = "failed"

Figures = dict[str, Any]
"""A cell's figures by name, with units in the names; None for those that the cell does not have."""


@dataclass(frozen=True)
class Instruments:
    """Measurements of samples and features that only a comparison of families has.

    Attributes:
        coverage: Whether a classifier finds the classes of the samples.
        probe: Whether the layers of a model that offers features are probed.
        classifier: The classifier's file.
    """

    coverage: bool
    probe: bool
    classifier: Path


def measure_cell(cell: Cell, settings: Settings, folder: Path, instruments: Instruments) -> Figures:
    """Train and measure a cell in this process.

    A cell that does not fit the memory or the budget, or that fails, has a result as well, which says so in the
    comparison. ``result.json`` is written unless the training was asked to stop.

    Args:
        cell: The cell.
        settings: The comparison's settings.
        folder: The cell's folder.
        instruments: Further measurements.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = chosen_device(settings.device)
    limit_memory(settings.memory_gib, device)
    try:
        figures = {"status": DONE, **cell_figures(cell, settings, folder, instruments, device)}
    except StoppedError:
        return {"status": STOPPED}
    except OverBudgetError as error:
        figures = {"status": OVER_BUDGET, "reason": str(error)}
    except Exception as error:
        if is_out_of_memory(error):
            figures = {"status": OUT_OF_MEMORY, "reason": str(error).splitlines()[0]}
        else:
            if not isinstance(error, InputError | NonFiniteError):
                traceback.print_exc(file=sys.stderr)
            reason = str(error).splitlines()[0] if str(error) else ""
            figures = {"status": FAILED, "reason": f"{type(error).__name__}: {reason}"}
    write_json(folder / RESULT_NAME, figures)
    return figures


def cell_figures(
    cell: Cell, settings: Settings, folder: Path, instruments: Instruments, device: torch.device
) -> Figures:
    """All figures of a cell."""
    images = cell_images(settings, cell.resolution)
    trained = train_cell(cell, settings, images, folder)
    pipeline = trained.pipeline
    drawn: list[Drawn] = []

    def draw() -> None:
        drawn.append(
            draw_images(
                pipeline,
                settings.samples,
                settings.sample_batch,
                seed=settings.seed,
                limit_seconds=settings.sample_seconds,
            )
        )

    memory = with_peak_memory(draw, device)
    samples = drawn[0]
    shown = samples.images if len(samples.images) else samples.unfinished
    save_image(image_grid(shown[:SHOWN_SAMPLES]), folder / SAMPLES_NAME)
    return {
        **training_figures(trained),
        **likelihood_figures(cell, trained, images),
        **fidelity_figures(pipeline, images, folder),
        **cost_figures(cell, pipeline, images, settings, samples),
        "sample_peak_bytes": memory.peak_bytes,
        **quality_figures(images, samples.images, settings),
        **class_figures(pipeline, images, samples.images, settings, instruments, device),
    }


def training_figures(trained: TrainedCell) -> Figures:
    """The costs of training: sums over the stages, except for the rates, of which each stage has its own."""
    model, tokenizer = trained.stages["model"], trained.stages.get("tokenizer")
    stages = list(trained.stages.values())
    return {
        "parameters": _parameters(trained.pipeline.model),
        "tokenizer_parameters": _parameters(trained.pipeline.tokenizer) if tokenizer else None,
        "training_steps": model.steps,
        "tokenizer_training_steps": tokenizer.steps if tokenizer else None,
        "training_images_per_second": model.images_per_second,
        "tokenizer_training_images_per_second": tokenizer.images_per_second if tokenizer else None,
        "training_seconds": sum(stage.seconds for stage in stages),
        "training_flops": sum(stage.flops for stage in stages),
        "training_peak_bytes": max(stage.peak_bytes for stage in stages),
    }


def likelihood_figures(cell: Cell, trained: TrainedCell, images: ImageData) -> Figures:
    """The test likelihood, under the name that fits the cell's symbols."""
    model = trained.stages["model"].test
    symbols = FAMILIES[cell.family].symbols
    figures: Figures = {
        "test_images": model["items"],
        "nll_nats": model["nll_nats"],
        "nll_nats_standard_error": model["nll_nats_standard_error"],
        "bits_per_dim": model["bits_per_dim"] if symbols == "subpixels" else None,
        "elbo_bits_per_dim": None,
        "nats_per_code": model["nats_per_symbol"] if symbols == "codes" else None,
        "nats_per_palette_colour": model["nats_per_symbol"] if symbols == "palette" else None,
    }
    if symbols == "codes":
        dims = images.shape[0] * images.shape[1] * images.shape[2]
        reconstruction = trained.stages["tokenizer"].test["reconstruction_bits_per_dim"]
        figures["elbo_bits_per_dim"] = reconstruction + bits_per_dim(model["nll_nats"], dims)
    return figures


@torch.no_grad()
def fidelity_figures(pipeline: ImagePipeline, images: ImageData, folder: Path) -> Figures:
    """How well the tokenizer reconstructs the test images; None if it loses nothing."""
    errors, count, shown = 0.0, 0, list[Tensor]()
    for batch in images.test.ordered(score_batch(images.shape[1])):
        again = pipeline.reconstruct(batch.values, "tensor")
        errors += float((again.double() - batch.values.double()).square().sum())
        count += again.numel()
        if sum(map(len, shown)) < 2 * SHOWN_PAIRS:
            shown.append(torch.stack([batch.values, again], 1))
    if not errors:
        return {"psnr_db": None}
    pairs = torch.cat([pair.flatten(0, 1) for pair in shown])[: 2 * SHOWN_PAIRS]
    rows = torch.cat([pairs[0::2], pairs[1::2]])
    save_image(image_grid(rows, columns=len(pairs) // 2), folder / RECONSTRUCTIONS_NAME)
    return {"psnr_db": psnr_db(errors / count)}


def cost_figures(
    cell: Cell, pipeline: ImagePipeline, images: ImageData, settings: Settings, samples: Drawn
) -> Figures:
    """The costs of scoring and sampling an image."""
    batch = score_batch(cell.resolution)
    some = next(iter(images.test.ordered(batch))).values
    grid = pipeline.model.grid
    evaluations = None
    if settings.parallel:
        parallel = pipeline.sample_symbols(
            settings.parallel, seed=settings.seed, batch_size=batch, parallel=True
        )
        assert parallel.evaluations is not None
        evaluations = parallel.evaluations.double().mean().item()
    return {
        "symbols_an_image": grid.size,
        "naive_evaluations_an_image": grid.size,
        "parallel_evaluations_an_image": evaluations,
        "flops_an_image": flops_an_image(pipeline, some[:1]),
        "score_seconds_an_image": score_seconds_an_image(pipeline, some),
        "score_batch": len(some),
        "sample_seconds_an_image": samples.seconds_an_image,
        "sample_batch": samples.batch_size,
        "sample_seconds_extrapolated": samples.extrapolated,
        "naive_seconds_an_image_extrapolated": naive_seconds_an_image(
            pipeline, len(some), settings.naive_sites
        ),
        "samples": len(samples.images),
    }


def quality_figures(images: ImageData, drawn: Tensor, settings: Settings) -> Figures:
    """Fréchet distances of the samples, and of held-out real images."""
    reference = first_of(images.train, REFERENCE_IMAGES).values
    held_out = first_of(images.test, 0).values
    figures: Figures = {"frechet": None, "frechet_floor": None, "frechet_images": None}
    found = distances(reference, held_out, drawn)
    if found:
        figures |= {"frechet": found.drawn, "frechet_floor": found.floor, "frechet_images": found.images}
    if settings.inception is not None:
        by_network = inception_distances(settings.inception, reference, held_out, drawn)
        figures["inception_frechet"] = by_network.drawn if by_network else None
        figures["inception_frechet_floor"] = by_network.floor if by_network else None
    return figures


def class_figures(
    pipeline: ImagePipeline,
    images: ImageData,
    drawn: Tensor,
    settings: Settings,
    instruments: Instruments,
    device: torch.device,
) -> Figures:
    """Mode coverage and the linear probe, if they are asked for and the dataset has classes."""
    figures: Figures = {}
    if not images.classes:
        return figures
    if instruments.coverage and len(drawn):
        classifier = classifier_of(instruments.classifier, images, device, settings.seed)
        figures["classes"] = list(images.classes)
        figures["coverage"] = dataclasses.asdict(coverage(classifier, images, drawn))
    if instruments.probe and isinstance(pipeline.model, LayeredModel):
        train, test = first_of(images.train, PROBED_IMAGES), first_of(images.test, 0)
        report = probe_layers(pipeline.model, pipeline.tokenizer, train, test, seed=settings.seed)
        figures["probe"] = dataclasses.asdict(report)
        figures["probe_best_accuracy"] = max(score.accuracy for score in report.layers)
        figures["probe_pixels_accuracy"] = report.pixels.accuracy
    return figures


def _parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
