"""The families: buildable at every usual resolution, and refused where they are not."""

from __future__ import annotations

import pytest

from pipeline.compare.plan.families import (
    FAMILIES,
    batch_size,
    check_cell,
    family_named,
    symbol_grid,
    vqvae_config,
)
from pipeline.compare.plan.settings import Cell, Size
from pipeline.models import model_classes
from rasterwise.errors import InputError


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_at_the_usual_resolutions(family: str) -> None:
    """In grey and in colour; its configuration is that of a known model."""
    for resolution in (4, 8, 16, 32, 64, 128, 256):
        for channels in (1, 3):
            cell = Cell(family, resolution, FAMILIES[family].size)
            check_cell(cell, channels)
            config = FAMILIES[family].config(symbol_grid(cell, channels), cell.size)
            assert type(config) in {model.config_class for model in model_classes().values()}  # type: ignore[attr-defined]


def test_the_code_grid_stays_as_the_image_grows() -> None:
    sides = {side: side // vqvae_config(3, side).factor for side in (8, 16, 32, 64, 128, 256)}
    assert sides == {8: 4, 16: 8, 32: 8, 64: 8, 128: 8, 256: 16}


def test_what_a_model_cannot_take() -> None:
    """A resolution that the VQ-VAE's factor does not divide; a width that heads or channels do not."""
    with pytest.raises(
        InputError, match=r"vqvae-prior cannot take resolution 30, .* factor 4 .*; 28 would do"
    ):
        check_cell(Cell("vqvae-prior", 30, Size(64, 2)), 3)
    with pytest.raises(InputError, match="resolution is 1, expected 2 or more"):
        check_cell(Cell("pixelcnn", 1, Size(64, 2)), 3)
    with pytest.raises(
        InputError, match="pixelcnn of size 5x2 at resolution 8: width is 5, expected an even"
    ):
        check_cell(Cell("pixelcnn", 8, Size(5, 2)), 3)


def test_names() -> None:
    assert family_named("pixelcnn++") == "pixelcnn-pp"
    with pytest.raises(InputError, match="model is 'gan', expected one of pixelcnn, gated-pixelcnn"):
        family_named("gan")


def test_batches_shrink_as_images_grow() -> None:
    """Those of pixel models, which hold all logits of an image."""
    assert [batch_size("subpixels", side) for side in (8, 32, 64, 128, 256)] == [32, 32, 8, 2, 2]
    assert batch_size("codes", 128) == 16
