"""Both stages on documents about digits: what ``rasterwise quickstart documents`` trains, draws and measures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pipeline.commands.digits import AUGMENTATION, COPIES
from pipeline.commands.train import train_text_prior_with_images
from pipeline.document_page import Parts, save_documents
from pipeline.evaluation.classifier import classifier_accuracy, fit_classifier
from pipeline.evaluation.digit_documents import Answered, accuracies, answer, draw
from pipeline.image_pipeline import ImagePipeline
from rasterwise.codes.encode_documents import encode_documents
from rasterwise.data.config import DIGITS, DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.data.document_sources import DigitDocumentsConfig, make_digit_documents
from rasterwise.data.indexed import first_of
from rasterwise.decoding.sampling import Sampling
from rasterwise.images import to_pil
from rasterwise.progress import Progress
from stage1_vqvae import VQVAE
from stage1_vqvae.recipes import vqvae_recipe
from stage1_vqvae.train import train_vqvae
from stage2_prior.recipes import documents_recipe

DOCUMENTS = DigitDocumentsConfig(train_documents=30_000, test_documents=600, tasks=("name", "draw", "sum"))
ANSWERS = 300
"""Answers to each task that are measured."""
TEMPERATURE = 0.5
"""Of the answers: a short training's distribution of codes is still too flat."""
BEST_OF = 4
"""Drawings of each caption, of which the model keeps the one that it reads best itself."""
SHOWN = 16
"""Answers to each task that are shown."""


def make_digit_documents_run(output: Path) -> dict[str, Any]:
    """Train both stages on digits and documents about them, have the model answer tasks, and measure the answers.

    Args:
        output: The folder for everything. Stages that it holds already are not trained again.

    Returns:
        The report.
    """
    began = time.monotonic()
    stages = vqvae_recipe(output / "vqvae")
    data = open_images(stages.data)
    with Progress("quickstart documents") as progress:
        progress.line(f"1/4 training a VQ-VAE on {data.train.length} digits")
        stage1 = train_vqvae(stages)
        progress.line(f"2/4 making and encoding {DOCUMENTS.train_documents:,} documents about digits")
        documents = make_digit_documents(DOCUMENTS, copies=COPIES, augmentation=AUGMENTATION)
        vqvae = VQVAE.from_pretrained(stages.output)
        encoded = encode_documents(vqvae, documents, output / "codes", progress=progress)
        progress.line("3/4 training a Chameleon on the documents")
        stage2 = train_text_prior_with_images(documents_recipe(encoded.folder, output / "prior"))
        progress.line("4/4 having it name, draw and add digits it has never seen")
    pipeline = ImagePipeline.from_pretrained(output / "prior")
    measured = measure_digit_documents(
        pipeline,
        output / "page",
        answers=ANSWERS,
        sampling=Sampling(temperature=TEMPERATURE),
        best_of=BEST_OF,
    )
    return {
        "page": str(output / "page" / "index.html"),
        "pipeline": str(output / "prior"),
        **measured,
        "likelihood": stage2["test"],
        "seconds": {
            "vqvae": stage1["seconds"],
            "prior": stage2["seconds"],
            "in_all": round(time.monotonic() - began, 1),
        },
        "device": stage1["device"],
    }


def measure_digit_documents(
    pipeline: ImagePipeline,
    page: Path,
    *,
    answers: int,
    best_of: int = 1,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Have a chameleon answer tasks about test digits, and measure the answers.

    Args:
        pipeline: With a chameleon that was trained on documents about digits.
        page: A folder for a page that shows some answers.
        answers: To each task.
        best_of: Drawings of each caption, of which the model keeps one by its own likelihood.
        sampling: How answers are drawn; by default from the model's own distribution.
        seed: Of the tasks, of the answers and of the classifier.

    Returns:
        ``caption_exact_match`` (captions that are a wording of the digit in the image), ``conditional_accuracy``
        (drawn digits that a classifier takes for the one asked for), ``sum_written_accuracy`` and
        ``sum_drawn_accuracy``; and ``classifier_accuracy``, the classifier's on real test digits.
    """
    data = open_images(DataConfig(dataset=DIGITS))
    test = first_of(data.test, 0)
    assert test.labels is not None, "digits have labels"
    with Progress("fitting a classifier", "step") as progress:
        device = pipeline.model.device
        classifier = fit_classifier(data.train, data.shape, len(data.classes), device, seed, progress)
    sampling = sampling or Sampling()
    report: dict[str, Any] = {"answers": answers, "temperature": sampling.temperature, "best_of": best_of}
    shown: list[Answered] = []
    names = {
        ("name", "written"): "caption_exact_match",
        ("draw", "drawn"): "conditional_accuracy",
        ("sum", "written"): "sum_written_accuracy",
        ("sum", "drawn"): "sum_drawn_accuracy",
    }
    for task in ("name", "draw", "sum"):
        if task == "draw":
            found = draw(
                pipeline, test.values, test.labels, answers, best_of=best_of, sampling=sampling, seed=seed
            )
        else:
            found = answer(pipeline, test.values, test.labels, task, answers, sampling=sampling, seed=seed)
        shown += found[:SHOWN]
        report |= {names[task, kind]: value for kind, value in accuracies(found, classifier).items()}
    report["classifier_accuracy"] = classifier_accuracy(classifier, data.test)
    rows: list[tuple[Parts, Parts]] = [(_visible(one.document.prompt), one.answer) for one in shown]
    save_documents(rows, page, title="Digits named, drawn and added; what the model answered is coloured")
    return report


def _visible(parts: Any) -> Parts:
    return [part if isinstance(part, str) else to_pil(part) for part in parts]
