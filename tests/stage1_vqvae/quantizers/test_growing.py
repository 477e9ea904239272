"""Vector quantizers whose codebook grows along the raster order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.models import open_tokenizer
from rasterwise.errors import InputError
from rasterwise.symbols.growing_codebook import allowed_codes
from rasterwise.symbols.two_grids import separated
from stage1_vqvae import (
    VQVAE,
    ConvolutionalConfig,
    L2QuantizerConfig,
    ResidualQuantizerConfig,
    VectorQuantizerConfig,
    VQVAEConfig,
)
from stage1_vqvae.quantizers.codebook import nearest_codes
from stage1_vqvae.quantizers.vector import CodebookConfig, VectorQuantizer
from tests.stage1_vqvae.images import random_images as images

KINDS: list[type[Any]] = [VectorQuantizerConfig, L2QuantizerConfig, ResidualQuantizerConfig]


def vqvae(config: CodebookConfig, **settings: Any) -> VQVAE:
    networks = ConvolutionalConfig(width=16, blocks=1)
    model = VQVAE(VQVAEConfig(factor=2, autoencoder=networks, quantizer=config, **settings))  # type: ignore[arg-type]
    model(images())
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_site_has_the_first_codes_alone(kind: type[Any]) -> None:
    """In training and afterwards, in every channel of residual codes; all codes are in reach at the last site."""
    model = vqvae(kind(codebook_size=12, code_width=4, smallest_codebook=2))
    allowed = allowed_codes(8 * 16, 12, 2)
    for codes in (model.train()(images()).codes, model.eval().encode(images())):
        assert (codes.flatten(2) < allowed).all()
        assert (codes.flatten(2)[..., :10] < 3).all()
        assert codes.max() > 2  # later sites do have more


def test_the_nearest_of_those_that_are_allowed() -> None:
    """By brute force, whatever the parts that are searched at once."""
    generator = torch.Generator().manual_seed(0)
    latents, codebook = torch.randn(3, 7, 4, generator=generator), torch.randn(20, 4, generator=generator)
    allowed = allowed_codes(7, 20, 2)
    distances = (latents[:, :, None] - codebook).square().sum(-1)
    expected = torch.stack(
        [distances[:, site, : int(count)].argmin(-1) for site, count in enumerate(allowed)], 1
    )
    assert torch.equal(nearest_codes(latents, codebook, allowed), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stage1_vqvae.quantizers.codebook.DISTANCES_AT_ONCE", 100)
        assert torch.equal(nearest_codes(latents, codebook, allowed), expected)
    assert not torch.equal(nearest_codes(latents, codebook), expected)


def test_two_grids_each_have_a_codebook_that_grows() -> None:
    config = VectorQuantizerConfig(codebook_size=12, code_width=4, smallest_codebook=2)
    top, bottom = separated(vqvae(config, grids=2, top_width=16).encode(images()))
    assert (top.flatten(2) < allowed_codes(4 * 8, 12, 2)).all()
    assert (bottom.flatten(2) < allowed_codes(8 * 16, 12, 2)).all()


def test_the_setting_is_saved_and_hashed(tmp_path: Path) -> None:
    """It is in the fingerprint where there is one, and not where there is none, as before there was the setting."""
    growing = vqvae(VectorQuantizerConfig(codebook_size=12, code_width=4, smallest_codebook=2))
    opened = open_tokenizer(growing.save_pretrained(tmp_path / "model"))
    assert opened.fingerprint == growing.fingerprint
    assert torch.equal(opened.encode(images()), growing.encode(images()))
    assert growing.identity()["smallest_codebook"] == 2
    for kind in KINDS:
        model = VQVAE(VQVAEConfig(quantizer=kind(), autoencoder=ConvolutionalConfig(width=16)))
        assert "smallest_codebook" not in model.identity() | model.identity().get("quantizer", {})


def test_refusals() -> None:
    with pytest.raises(InputError, match="smallest_codebook is 13, expected at most codebook_size, 12"):
        VectorQuantizerConfig(codebook_size=12, smallest_codebook=13)
    assert isinstance(VectorQuantizerConfig(codebook_size=12, smallest_codebook=12).build(), VectorQuantizer)
