"""What is timed and counted: the images that come of it, not the times."""

from __future__ import annotations

import pytest
import torch

from pipeline.compare.measurement.costs import UNDRAWN, draw_images, flops_an_image, naive_seconds_an_image
from pipeline.image_pipeline import ImagePipeline
from pixel_baselines import GatedPixelCNN, GatedPixelCNNConfig
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig


@pytest.fixture
def pipeline() -> ImagePipeline:
    config = GatedPixelCNNConfig(grid=Grid(1, 6, 6, 4), width=8, depth=2, output_width=8)
    return ImagePipeline(PixelTokenizer(PixelTokenizerConfig(levels=4)), GatedPixelCNN(config).eval())


def test_drawn_images_are_the_models_own(pipeline: ImagePipeline) -> None:
    """The same as ``sample`` draws with the seed."""
    drawn = draw_images(pipeline, 5, 2, seed=3, limit_seconds=1e9)
    assert torch.equal(drawn.images, pipeline.sample(5, seed=3, batch_size=2, output="tensor"))
    assert not drawn.extrapolated
    assert drawn.batch_size == 2
    assert not len(drawn.unfinished)


def test_a_limit_that_is_over_at_once(pipeline: ImagePipeline) -> None:
    """The first batch is cut off: no whole image, a time that is said to be extrapolated, and grey below."""
    drawn = draw_images(pipeline, 5, 2, seed=3, limit_seconds=0.0)
    assert drawn.images.shape == (0, 1, 6, 6)
    assert drawn.extrapolated
    assert drawn.seconds_an_image > 0
    assert drawn.unfinished.shape == (2, 1, 6, 6)
    assert (drawn.unfinished == UNDRAWN).all()


def test_naive_sites_may_be_more_than_there_are(pipeline: ImagePipeline) -> None:
    assert naive_seconds_an_image(pipeline, 2, sites=1000) > 0


def test_flops_grow_with_the_model(pipeline: ImagePipeline) -> None:
    """Per image, whatever is scored; a wider model takes more."""
    image = torch.zeros(1, 1, 6, 6, dtype=torch.uint8)
    config = GatedPixelCNNConfig(grid=Grid(1, 6, 6, 4), width=16, depth=2, output_width=8)
    wider = ImagePipeline(pipeline.tokenizer, GatedPixelCNN(config).eval())
    assert 0 < flops_an_image(pipeline, image) < flops_an_image(wider, image)
