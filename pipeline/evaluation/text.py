"""What a pipeline of text and images is worth: likelihoods of both, retrieval, captions and drawings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pipeline.evaluation.classifier import classifier_accuracy, fit_classifier
from pipeline.image_pipeline import ImagePipeline
from rasterwise.codes.texts import TokenizedCaptions
from rasterwise.data.dataset import ImageData
from rasterwise.data.indexed import IndexedSplit, first_of, tensor_split
from rasterwise.data.splits import Captions, Split
from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.models.pretrained import evaluating
from rasterwise.progress import Progress
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.text import TextBatch
from stage2_prior.conditioning.text import TextImageModel
from stage2_prior.documents.model import Chameleon
from stage2_prior.evaluation import evaluate_captioned


def evaluate_text(
    pipeline: ImagePipeline,
    data: ImageData,
    *,
    samples: int = 1000,
    retrieval_images: int = 200,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Metrics of a model of text and images on captioned test images.

    Of an image with several captions, likelihoods take number i mod k for image i. What is drawn counts as right if
    it is any of the image's captions.

    Args:
        pipeline: What is measured.
        data: Opened with captions.
        samples: Images to draw, and to caption, of the first test items; 0 draws none.
        retrieval_images: First test items among which retrieval searches; 0: none.
        sampling: How images are drawn; captions are drawn at temperature 1 and at 0.
        seed: Of what is drawn, and of the classifier.
        batch_size: How many are computed at once.

    Returns:
        What ``evaluate_captioned`` gives; ``pointwise_mutual_information_nats`` log p(image | text) − log p(image), a
        mean over the images, and the same with the captions of other images
        (``shuffled_pointwise_mutual_information_nats``); what ``retrieval`` gives. Of a chameleon, the share of images
        whose drawn caption is one of theirs (``caption_exact_match`` at temperature 1,
        ``likeliest_caption_exact_match`` at temperature 0), and of captions that come back through a drawn image
        (``round_trip_exact_match``). With classes, the share of images that a classifier takes for the class of the
        image whose caption they were drawn for (``conditional_accuracy``), and its own on real images
        (``classifier_accuracy``).

    Raises:
        InputError: The data have no captions, or the model knows no text.
    """
    if not data.captioned:
        raise InputError(
            "the images were opened without their captions, which a model of text is measured on"
        )
    text, model = pipeline.text, pipeline.text.model
    split = encoded(pipeline, data.test, batch_size)
    texts = TokenizedCaptions(split, text.tokenizer)
    accelerator = Accelerator(cpu=model.device.type == "cpu")
    with evaluating(model), torch.no_grad():
        report: dict[str, Any] = dict(evaluate_captioned(model, texts, accelerator, batch_size=batch_size))
        true, shuffled = _mutual_information(model, texts, batch_size)
        report["pointwise_mutual_information_nats"] = true
        report["shuffled_pointwise_mutual_information_nats"] = shuffled
        if retrieval_images:
            report |= retrieval(model, texts, retrieval_images, batch_size)
        if samples:
            report |= _drawn(pipeline, data, texts, samples, sampling, seed, batch_size)
    return report


def encoded(pipeline: ImagePipeline, split: Split, batch_size: int) -> IndexedSplit:
    """A split of captioned images as codes in memory."""
    batches = list(split.ordered(batch_size))
    codes = torch.cat([pipeline.encode(batch.values).cpu() for batch in batches])
    labels = [batch.labels for batch in batches if batch.labels is not None]
    captions: list[Captions] = [batch.captions for batch in batches if batch.captions is not None]
    return tensor_split(
        codes, torch.cat(labels) if labels else None, tuple(one for some in captions for one in some)
    )


@dataclass(frozen=True)
class Retrieved:
    """Which item each query found.

    Attributes:
        images: int64 ``(n,)``, the image of each text.
        texts: int64 ``(n,)``, the text of each image.
    """

    images: Tensor
    texts: Tensor


def retrieved(model: TextImageModel, codes: Tensor, texts: TextBatch, batch_size: int = 64) -> Retrieved:
    """Search by likelihood, every text against every image.

    A text finds the image with the largest pointwise mutual information log p(image | text) − log p(image): by
    likelihood alone it would find images that are likely whatever the text. An image finds the text with the largest
    log p(image | text): all texts are equally likely beforehand.

    Args:
        model: In evaluation mode.
        codes: int64 ``(n, C, H, W)``.
        texts: n of them.
        batch_size: How many pairs are computed at once.
    """
    count = len(codes)
    pairs = torch.cartesian_prod(torch.arange(count), torch.arange(count))
    joint = torch.cat(
        [_log_prob(model, codes[some[:, 1]], texts[some[:, 0]]) for some in pairs.split(batch_size)]
    ).view(count, count)
    alone = torch.cat([_log_prob(model, some, None) for some in codes.split(batch_size)])
    return Retrieved((joint - alone).argmax(1), joint.argmax(0))


def retrieval(
    model: TextImageModel, split: TokenizedCaptions, images: int, batch_size: int
) -> dict[str, Any]:
    """Recall at 1 both ways among the first items of a split.

    Args:
        model: In evaluation mode.
        split: Codes with texts.
        images: How many items.
        batch_size: How many pairs are computed at once.

    Returns:
        retrieval_images; ``image_recall_at_1``, the share of texts that find an image which has this caption;
        ``caption_recall_at_1``, the share of images that find a text which is one of their captions.
    """
    batch = next(split.ordered(images))
    everything = first_of(split.split, images)
    assert batch.texts is not None and batch.captions is not None, "the split has texts"  # noqa: PT018
    assert everything.captions is not None
    found = retrieved(model, batch.values, batch.texts, batch_size)
    given = [one for (one,) in batch.captions]
    of_text = [given[text] in everything.captions[image] for text, image in enumerate(found.images.tolist())]
    of_image = [given[text] in everything.captions[image] for image, text in enumerate(found.texts.tolist())]
    return {
        "retrieval_images": len(given),
        "image_recall_at_1": sum(of_text) / len(given),
        "caption_recall_at_1": sum(of_image) / len(given),
    }


def _log_prob(model: TextImageModel, codes: Tensor, texts: TextBatch | None) -> Tensor:
    condition = None if texts is None else Condition(text=texts.to(model.device))
    return model.log_prob(codes.to(model.device), condition).double().cpu()


def _mutual_information(
    model: TextImageModel, split: TokenizedCaptions, batch_size: int
) -> tuple[float, float]:
    """The mean over a split with its own captions, and with those of other items: of one half of the split further."""
    batch = next(split.ordered(split.length))
    assert batch.texts is not None, "the split has texts"
    others = batch.texts[(torch.arange(len(batch)) + max(1, len(batch) // 2)) % len(batch)]
    means = []
    for texts in (batch.texts, others):
        rows = [slice(start, start + batch_size) for start in range(0, len(batch), batch_size)]
        gains = [
            _log_prob(model, batch.values[some], texts[some]) - _log_prob(model, batch.values[some], None)
            for some in rows
        ]
        means.append(float(torch.cat(gains).mean()))
    return means[0], means[1]


def _drawn(
    pipeline: ImagePipeline,
    data: ImageData,
    split: TokenizedCaptions,
    samples: int,
    sampling: Sampling | None,
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    """What is right of what is drawn."""
    batch, everything = next(split.ordered(samples)), first_of(split.split, samples)
    assert batch.captions is not None and everything.captions is not None  # noqa: PT018
    prompts, all_captions = [one for (one,) in batch.captions], everything.captions
    with Progress("drawing images", "image") as progress:
        drawn = pipeline.sample_symbols(
            len(prompts),
            prompts=prompts,
            sampling=sampling,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        ).symbols
    report: dict[str, Any] = {"samples": len(prompts)}
    if isinstance(pipeline.model, Chameleon):
        for name, codes, temperature in (
            ("caption_exact_match", batch.values, 1.0),
            ("likeliest_caption_exact_match", batch.values, 0.0),
            ("round_trip_exact_match", drawn, 0.0),
        ):
            captions = pipeline.text.caption(
                codes.to(pipeline.model.device),
                sampling=Sampling(temperature=temperature),
                generator=torch.Generator().manual_seed(seed),
                batch_size=batch_size,
            )
            right = [one in some for one, some in zip(captions, all_captions, strict=True)]
            report[name] = sum(right) / len(right)
    if data.classes:
        labels = everything.labels
        assert labels is not None, "the data have classes"
        with Progress("fitting a classifier", "step") as progress, torch.enable_grad():
            classifier = fit_classifier(
                data.train, data.shape, len(data.classes), pipeline.model.device, seed, progress
            )
        images = pipeline.decode(drawn, "tensor", batch_size=batch_size)
        report["conditional_accuracy"] = float((classifier.predict(images) == labels).double().mean())
        report["classifier_accuracy"] = classifier_accuracy(classifier, data.test)
    return report
