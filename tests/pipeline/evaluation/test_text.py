"""Metrics of text and images: each equals what is computed by hand, pair by pair."""

from __future__ import annotations

import pytest
import torch

from pipeline.evaluation.text import evaluate_text, retrieved
from pipeline.image_pipeline import ImagePipeline
from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import ImageData, open_images
from rasterwise.data.indexed import tensor_split
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from rasterwise.tokenizers.text import TextTokenizer
from stage2_prior.documents.model import Chameleon
from stage2_prior.documents.network import ChameleonConfig

PIXELS, TEXT = PixelTokenizer(PixelTokenizerConfig(levels=2)), TextTokenizer()
CAPTIONS = (("a", "b"), ("c",), ("d", "e"), ("c",))


@pytest.fixture(scope="module")
def pipeline() -> ImagePipeline:
    torch.manual_seed(0)
    config = ChameleonConfig(grid=PIXELS.grid(1, 2, 2), text_length=2, depth=1, width=16, heads=2)
    model = Chameleon(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return ImagePipeline(PIXELS, model.eval(), TEXT)


@pytest.fixture(scope="module")
def data() -> ImageData:
    images = (
        torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 1]]).view(4, 1, 2, 2).byte() * 255
    )
    split = tensor_split(images, captions=CAPTIONS)
    return ImageData(split, split, (1, 2, 2), (), open_images(DataConfig()).columns, captioned=True)


def by_hand(pipeline: ImagePipeline, codes: torch.Tensor, texts: list[str]) -> list[list[float]]:
    """log p(image | text) of every text and image, one by one."""
    return [
        [
            float(pipeline.model.log_prob(image[None], Condition(text=TEXT.encode_batch([text]).batch)))
            for image in codes
        ]
        for text in texts
    ]


@torch.no_grad()
def test_retrieval_is_by_every_pair(pipeline: ImagePipeline, data: ImageData) -> None:
    """Texts find images by pointwise mutual information, images find texts by likelihood."""
    codes = pipeline.encode(next(data.test.ordered(4)).values)
    texts = ["a", "c", "d", "c"]
    model = pipeline.text.model
    joint = torch.tensor(by_hand(pipeline, codes, texts), dtype=torch.float64)
    alone = torch.stack([model.log_prob(image[None])[0] for image in codes])
    for batch_size in (3, 64):
        found = retrieved(model, codes, TEXT.encode_batch(texts).batch, batch_size)
        assert found.images.tolist() == (joint - alone).argmax(1).tolist()
        assert found.texts.tolist() == joint.argmax(0).tolist()


@torch.no_grad()
def test_the_report_is_what_is_computed_by_hand(pipeline: ImagePipeline, data: ImageData) -> None:
    """Mutual information with an image's own caption and with another's; matches count any of an image's captions."""
    report = evaluate_text(pipeline, data, samples=4, retrieval_images=4, seed=1, batch_size=3)
    codes = pipeline.encode(next(data.test.ordered(4)).values)
    texts = ["a", "c", "d", "c"]  # item i has caption i mod k
    joint = torch.tensor(by_hand(pipeline, codes, texts), dtype=torch.float64)
    alone = torch.stack([pipeline.model.log_prob(image[None])[0] for image in codes])
    own, others = joint.diagonal(), torch.stack([joint[(i + 2) % 4, i] for i in range(4)])
    assert report["nll_nats"] == pytest.approx(-float(own.mean()), abs=1e-9)
    assert report["pointwise_mutual_information_nats"] == pytest.approx(float((own - alone).mean()), abs=1e-9)
    assert report["shuffled_pointwise_mutual_information_nats"] == pytest.approx(
        float((others - alone).mean()), abs=1e-9
    )
    found = retrieved(pipeline.text.model, codes, TEXT.encode_batch(texts).batch)
    of_image = [texts[text] in CAPTIONS[image] for image, text in enumerate(found.texts.tolist())]
    assert report["caption_recall_at_1"] == sum(of_image) / 4
    drawn = pipeline.caption(next(data.test.ordered(4)).values, seed=1)
    assert (
        report["caption_exact_match"]
        == sum(one in some for one, some in zip(drawn, CAPTIONS, strict=True)) / 4
    )
    assert "conditional_accuracy" not in report


def test_images_without_captions_are_refused(pipeline: ImagePipeline, data: ImageData) -> None:
    """A model of text is measured on texts."""
    without = ImageData(data.train, data.test, data.shape, (), data.columns)
    with pytest.raises(InputError, match="without their captions"):
        evaluate_text(pipeline, without)
