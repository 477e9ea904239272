"""Measure a tokenizer with its model on a test split."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from pipeline.evaluation.classifier import classifier_accuracy, fit_classifier
from pipeline.evaluation.reconstruction import evaluate_reconstruction
from pipeline.image_pipeline import ImagePipeline
from rasterwise.data.dataset import ImageData
from rasterwise.data.splits import Split
from rasterwise.errors import InputError
from rasterwise.measure.metrics import histograms_entropy_nats
from rasterwise.progress import Progress
from rasterwise.symbols.likelihoods import bits_per_dim
from rasterwise.training.likelihood import evaluate_likelihood


def evaluate_pipeline(
    pipeline: ImagePipeline,
    data: ImageData,
    *,
    samples: int = 1000,
    seed: int = 0,
    batch_size: int = 128,
    distance_images: int = 1000,
    inception: nn.Module | None = None,
) -> dict[str, Any]:
    """Metrics of both stages and of class-conditional samples.

    Args:
        pipeline: What is measured.
        data: The test split measures the pipeline, and the train split trains the classifier of samples.
        samples: Class-conditional samples to draw and classify, as many of each class. None are drawn for 0, or where
            the model has no classes.
        seed: Of the samples and of the classifier.
        batch_size: Images at once.
        distance_images: See ``evaluate_reconstruction``.
        inception: Also.

    Returns:
        What ``evaluate_likelihood`` gives: nll_nats a grid, and bits_per_dim where symbols are subpixels. Over codes,
        its nats_per_symbol and accuracy are called nats_per_code and code_accuracy, and there are also
        code_histogram_entropy_nats (what a code costs if each is drawn by its frequency alone) and
        ``reconstruction`` (what ``evaluate_reconstruction`` gives, with elbo_bits_per_dim under the trained prior where
        the decoder is a likelihood). With classes there are also conditional_accuracy (the share of samples at
        temperature 1 that are classified as the class that they were drawn for) and classifier_accuracy (the
        classifier's on real test images).

    Raises:
        InputError: The classes of the data are not those of the model.
    """
    tokenizer, model = pipeline.tokenizer, pipeline.model
    accelerator = Accelerator(cpu=model.device.type == "cpu")
    likelihood = evaluate_likelihood(
        model, data.test, accelerator, tokenizer=tokenizer, batch_size=batch_size
    )
    report: dict[str, Any] = {"test_images": likelihood["items"]}
    if tokenizer.symbols != "codes":
        report |= {name: value for name, value in likelihood.items() if name != "items"}
    else:
        report |= {
            "nats_per_code": likelihood["nats_per_symbol"],
            "nats_per_code_standard_error": likelihood["nll_nats_standard_error"] / model.grid.size,
            "code_histogram_entropy_nats": _code_entropy(pipeline, data.test, batch_size),
            "code_accuracy": likelihood["accuracy"],
            **{name: value for name, value in likelihood.items() if name.endswith("nll_nats")},
        }
        reconstruction = evaluate_reconstruction(tokenizer, data, batch_size, distance_images, inception)
        if "reconstruction_bits_per_dim" in reconstruction:
            reconstruction["elbo_bits_per_dim"] = reconstruction[
                "reconstruction_bits_per_dim"
            ] + bits_per_dim(likelihood["nll_nats"], math.prod(data.shape))
        report["reconstruction"] = reconstruction
    classes = len(model.config.classes)
    if samples and classes and data.classes:
        if data.classes != model.config.classes:
            raise InputError(
                f"the dataset's classes are {data.classes[:5]}…, the model's {model.config.classes[:5]}…"
            )
        shown = accelerator.is_main_process
        with Progress("fitting a classifier", "step", shown=shown) as progress:
            classifier = fit_classifier(data.train, data.shape, classes, model.device, seed, progress)
        labels = torch.arange(classes).repeat_interleave(-(-samples // classes))
        with Progress("sampling", "image", shown=shown) as progress:
            drawn = pipeline.sample(
                len(labels),
                labels,
                seed=seed,
                batch_size=batch_size,
                accelerator=accelerator,
                output="tensor",
                progress=progress,
            )
        report["samples"] = len(labels)
        report["conditional_accuracy"] = float((classifier.predict(drawn) == labels).double().mean())
        report["classifier_accuracy"] = classifier_accuracy(classifier, data.test)
    return report


@torch.no_grad()
def _code_entropy(pipeline: ImagePipeline, split: Split, batch_size: int) -> float:
    symbols = (pipeline.encode(batch.values).cpu() for batch in split.ordered(batch_size))
    histograms = pipeline.tokenizer.histograms(symbols, pipeline.model.grid.levels)
    return histograms_entropy_nats(histograms.values())
