"""Tasks about digits, answered by a chameleon: names written, digits drawn, sums written and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from pipeline.evaluation.classifier import Classifier
from pipeline.image_pipeline import ImagePipeline
from rasterwise.data.digit_documents import SUM_WORDS, DigitDocument, DigitDocuments, Task
from rasterwise.data.sources.digits import digit_in
from rasterwise.decoding.sampling import Sampling
from rasterwise.images import pil_to_tensor

Parts = Sequence[str | Image.Image]


@dataclass(frozen=True)
class Answered:
    """A task, and a model's answer.

    Attributes:
        document: The task.
        answer: What the model wrote and drew.
    """

    document: DigitDocument
    answer: Parts

    @property
    def text(self) -> str:
        """What was written."""
        return "".join(part for part in self.answer if isinstance(part, str))

    @property
    def images(self) -> list[Image.Image]:
        """What was drawn."""
        return [part for part in self.answer if not isinstance(part, str)]


def answer(
    pipeline: ImagePipeline,
    images: torch.Tensor,
    labels: torch.Tensor,
    task: Task,
    count: int,
    *,
    largest_sum: int = 9,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Answered]:
    """Have a model answer tasks.

    Args:
        pipeline: With a chameleon.
        images: uint8 ``(N, C, H, W)`` that the tasks are made of; those of a test split.
        labels: int64 ``(N,)``.
        task: Which.
        count: How many.
        largest_sum: As the model was trained with.
        sampling: How answers are drawn.
        seed: Of the tasks and of the answers.
        batch_size: How many are drawn at once.
    """
    documents = DigitDocuments(images, labels, seed=seed, tasks=(task,), largest_sum=largest_sum)
    given = [documents[index] for index in range(count)]
    answers = pipeline.generate_many(
        [document.prompt for document in given], sampling=sampling, seed=seed, batch_size=batch_size
    )
    return [Answered(document, one) for document, one in zip(given, answers, strict=True)]


def draw(
    pipeline: ImagePipeline,
    images: torch.Tensor,
    labels: torch.Tensor,
    count: int,
    *,
    best_of: int = 1,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> list[Answered]:
    """Have a model draw digits from their captions, perhaps the best of several. Arguments as for ``answer``."""
    documents = DigitDocuments(images, labels, seed=seed, tasks=("draw",))
    given = [documents[index] for index in range(count)]
    prompts = ["".join(part for part in one.prompt if isinstance(part, str)) for one in given]
    drawn = pipeline.sample(prompts=prompts, best_of=best_of, sampling=sampling, seed=seed)
    return [Answered(document, [image]) for document, image in zip(given, drawn, strict=True)]


def accuracies(answers: Sequence[Answered], classifier: Classifier) -> dict[str, float]:
    """The shares of right answers.

    Args:
        answers: To one task.
        classifier: Takes drawn digits for digits.

    Returns:
        For "name", ``written``: the share of captions that are a wording of the digit. For "draw", ``drawn``: the
        share of answers that are one image, of the digit. For "sum", both: the word, and the digits of the figures.
    """
    task = answers[0].document.task
    found = {}
    if task == "name":
        found["written"] = [digit_in(one.text) == one.document.number for one in answers]
    if task == "sum":
        found["written"] = [one.text == SUM_WORDS[one.document.number] for one in answers]
    if task in ("draw", "sum"):
        found["drawn"] = [_figures(one, classifier) == str(one.document.number) for one in answers]
    return {name: sum(right) / len(right) for name, right in found.items()}


def _figures(one: Answered, classifier: Classifier) -> str:
    if not one.images:
        return ""
    colour = "grey" if one.images[0].mode == "L" else "rgb"
    images = torch.stack([pil_to_tensor(image, colour) for image in one.images])  # type: ignore[arg-type]
    return "".join(map(str, classifier.predict(images).tolist()))
