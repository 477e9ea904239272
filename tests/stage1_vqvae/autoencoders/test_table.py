"""What every autoencoder has."""

from __future__ import annotations

import pytest
import torch

from rasterwise.errors import InputError
from stage1_vqvae.autoencoders.attention import AttentionConfig
from stage1_vqvae.autoencoders.autoencoder import AutoencoderConfig
from stage1_vqvae.autoencoders.convolutional import ConvolutionalConfig
from stage1_vqvae.autoencoders.table import AUTOENCODERS
from stage1_vqvae.autoencoders.vit import ViTConfig

SMALL = [
    ConvolutionalConfig(width=16, blocks=1),
    AttentionConfig(width=32, blocks=1, bottleneck=5),
    AttentionConfig(width=32, blocks=1, attention="middle"),
    ViTConfig(blocks=1, width=16, heads=2),
]
EACH = pytest.mark.parametrize("config", SMALL, ids=["convolutional", "attention", "middle", "vit"])


def test_the_table_names_every_kind() -> None:
    for name, config in AUTOENCODERS.items():
        assert config().kind == name
    assert {type(config) for config in SMALL} == set(AUTOENCODERS.values())


@EACH
@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_shapes_at_every_factor(config: AutoencoderConfig, factor: int) -> None:
    """Grey and colour images that are not square, to the latents that a quantizer takes, and back."""
    for channels, outputs in ((1, 2), (3, 3)):
        encoder = config.build_encoder(channels, factor, 6)
        decoder = config.build_decoder(outputs, factor, 7)
        assert encoder(torch.randn(2, channels, 2 * factor, 3 * factor)).shape == (2, 6, 2, 3)
        assert decoder(torch.randn(2, 7, 2, 3)).shape == (2, outputs, 2 * factor, 3 * factor)


@EACH
def test_gradients_reach_every_parameter(config: AutoencoderConfig) -> None:
    """Of both networks, through both; the last weight is the decoder's and decides its outputs."""
    encoder, decoder = config.build_encoder(3, 4, 6), config.build_decoder(3, 4, 6)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    outputs = decoder(encoder(images))
    (outputs - images).square().mean().backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name
    assert any(parameter is decoder.last_weight for parameter in decoder.parameters())
    with torch.no_grad():
        decoder.last_weight.zero_()
        flat = decoder(encoder(images))
    # Of an output, the bias alone is left, which is the same at the same place of every patch.
    assert torch.allclose(flat, flat[:1, :, :4, :4].repeat(2, 1, 4, 4))


@EACH
def test_sizes_that_the_factor_does_not_divide_are_refused(config: AutoencoderConfig) -> None:
    encoder = config.build_encoder(1, 4, 6)
    for size in ((30, 32), (32, 30), (2, 4)):
        with pytest.raises(
            InputError, match=f"images are {size[0]}×{size[1]}, which factor 4 does not divide"
        ):
            encoder(torch.zeros(1, 1, *size))


@EACH
def test_the_batch_does_not_matter(config: AutoencoderConfig) -> None:
    """An image's latents are the same alone as among others."""
    encoder = config.build_encoder(3, 4, 6).double()
    images = torch.randn(3, 3, 16, 8, dtype=torch.float64)
    assert torch.allclose(encoder(images)[1:2], encoder(images[1:2]), atol=1e-12)
