"""Measure a trained VQ-VAE or pipeline on a test split: ``rasterwise evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from pipeline.evaluation.inception import open_inception
from pipeline.evaluation.pipeline import evaluate_pipeline
from pipeline.evaluation.reconstruction import evaluate_reconstruction
from pipeline.evaluation.text import evaluate_text
from pipeline.image_pipeline import ImagePipeline
from pipeline.models import open_tokenizer
from rasterwise.codes.documents import open_documents
from rasterwise.codes.texts import DocumentSequences
from rasterwise.command_line.run import run_command
from rasterwise.configuration import BatchSize, CountOrZero, Seed, configuration
from rasterwise.data.config import SAME_DATA, DataConfig, same_data
from rasterwise.data.dataset import image_counts, open_images
from rasterwise.data.indexed import IndexedSplit
from rasterwise.errors import InputError
from rasterwise.models.pretrained import local_folder
from rasterwise.progress import Progress
from stage2_prior.documents.model import Chameleon
from stage2_prior.evaluation import evaluate_documents


@configuration()
class Evaluate:
    """Measure a trained VQ-VAE or pipeline on every image of a test split.

    Under torchrun or ``accelerate launch``, processes share the work.

    Attributes:
        source: A VQ-VAE's or a pipeline's folder, a run's folder, or a Hub id.
        data: The images; with their captions for a model of text and images.
        codes: Measure a chameleon on the test documents of this folder, from `rasterwise encode --documents`, instead.
        samples: Samples drawn for conditional_accuracy, as many of each class; of a model of text and images, test
            captions drawn and test images captioned (0: none).
        retrieval_images: Test images among which texts and images find each other by likelihood (0: none).
        steps: Measure the prior as it draws an image in so many steps, several codes at once in each (see
            `rasterwise sample`): nats and samples are those of these steps; 0: one symbol after the other.
        precision: That in which a transformer is scored and decoded (see `rasterwise sample`).
        seed: Of the samples and of the classifier.
        batch_size: Images at once.
        distance_images: Test images of which a VQ-VAE's distances in the features of EfficientNet-Lite2 are measured;
            0: none. The network comes with the extra "perceptual".
        inception: A file of torchvision's Inception v3 weights as safetensors. With it, a VQ-VAE's distances are also
            given in that network's features; they are no FID, whose network is another one.
        json: Print the report as JSON.
    """

    source: str
    data: DataConfig = SAME_DATA
    codes: Path | None = None
    samples: CountOrZero = 1000
    retrieval_images: CountOrZero = 200
    steps: CountOrZero = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: Seed = 0
    batch_size: BatchSize = 128
    distance_images: CountOrZero = 1000
    inception: Path | None = None
    json: bool = False


def evaluate(options: Evaluate) -> dict[str, Any]:
    """Run the command."""
    folder = local_folder(options.source)
    whole = (folder / "tokenizer").is_dir()
    pipeline = ImagePipeline.from_pretrained(folder) if whole else None
    tokenizer = pipeline.tokenizer if pipeline else open_tokenizer(folder)
    inception = None
    if options.inception is not None:
        if tokenizer.symbols != "codes" or not options.distance_images:
            raise InputError(
                "--inception measures reconstructions of a learned tokenizer: name one, and --distance-images"
            )
        inception = open_inception(options.inception)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    (pipeline or tokenizer).to(accelerator.device)
    if options.steps or options.precision == "bf16":
        if pipeline is None:
            raise InputError(
                f"steps and precision are of a pipeline's model, and {options.source} holds a tokenizer alone"
            )
        model = pipeline.model.in_bf16() if options.precision == "bf16" else pipeline.model
        model = model.in_steps(options.steps) if options.steps else model
        pipeline = ImagePipeline(tokenizer, model, pipeline.text_tokenizer)
    if options.codes is not None:
        return {"source": options.source, **_on_documents(options, pipeline, accelerator)}
    text = pipeline is not None and pipeline.text_tokenizer is not None
    with Progress("reading images", "image", shown=accelerator.is_main_process) as progress:
        data = open_images(same_data(options.data, tokenizer.trained_on), progress, captions=text)
    tokenizer.grid(*data.shape)
    if pipeline is None:
        report: dict[str, Any] = evaluate_reconstruction(
            tokenizer, data, options.batch_size, options.distance_images, inception
        )
    else:
        report = evaluate_pipeline(
            pipeline,
            data,
            samples=0 if text else options.samples,
            seed=options.seed,
            batch_size=options.batch_size,
            distance_images=options.distance_images,
            inception=inception,
        )
    if text and pipeline is not None:
        report["text"] = evaluate_text(
            pipeline,
            data,
            samples=options.samples,
            retrieval_images=options.retrieval_images,
            seed=options.seed,
            batch_size=options.batch_size,
        )
    return {"source": options.source, **report, **image_counts(data, accelerator)}


def _on_documents(
    options: Evaluate, pipeline: ImagePipeline | None, accelerator: Accelerator
) -> dict[str, Any]:
    """Exact likelihood of test documents."""
    assert options.codes is not None
    model = pipeline.text.model if pipeline else None
    if pipeline is None or not isinstance(model, Chameleon):
        raise InputError(f"--codes takes a chameleon, which {options.source} is not")
    documents = open_documents(options.codes)
    if documents.key.tokenizer != pipeline.tokenizer.fingerprint:
        raise InputError(f"{options.codes} holds codes of another tokenizer than that of {options.source}")
    sequences = DocumentSequences(documents.test, pipeline.text.tokenizer, model.grammar())
    split = IndexedSplit(sequences, documents.key.test, held=True)
    return dict(
        evaluate_documents(model, pipeline.text.tokenizer, split, accelerator, batch_size=options.batch_size)
    )


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """The command."""
    return run_command(evaluate, Evaluate, arguments, program)


if __name__ == "__main__":
    sys.exit(main())
