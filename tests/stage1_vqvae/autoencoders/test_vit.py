"""The vision transformers."""

from __future__ import annotations

import pytest
import torch

from rasterwise.errors import InputError
from stage1_vqvae.autoencoders.vit import ViTConfig, position_embedding


def test_every_patch_sees_every_pixel() -> None:
    """The gradient of each latent reaches the whole image; that of each output all latents."""
    config = ViTConfig(blocks=1, width=16, heads=2)
    encoder, decoder = config.build_encoder(3, 4, 5).double(), config.build_decoder(3, 4, 5).double()
    images = torch.randn(1, 3, 12, 8, dtype=torch.float64, requires_grad=True)
    latents = torch.randn(1, 5, 3, 2, dtype=torch.float64, requires_grad=True)
    for row, column in ((0, 0), (2, 1)):
        (gradient,) = torch.autograd.grad(encoder(images)[0, :, row, column].sum(), images)
        assert (gradient != 0).all()
        (gradient,) = torch.autograd.grad(decoder(latents)[0, :, 4 * row, 4 * column].sum(), latents)
        assert (gradient != 0).all()


def test_positions_differ() -> None:
    """No two positions of a large grid have the same embedding, nor nearly so; a shorter grid has the same ones."""
    embedding = position_embedding(torch.zeros(1, 64, 24, 20))
    assert embedding.shape == (64, 24, 20)
    apart = torch.cdist(embedding.flatten(1).T, embedding.flatten(1).T)
    assert apart[~torch.eye(480, dtype=torch.bool)].min() > 0.5
    assert torch.equal(position_embedding(torch.zeros(1, 64, 8, 20)), embedding[:, :8])


def test_latents_depend_on_the_place() -> None:
    """Patches that are all alike have different latents, by their positions alone."""
    encoder = ViTConfig(blocks=1, width=16, heads=2).build_encoder(1, 4, 5)
    latents = encoder(torch.ones(1, 1, 8, 8)).flatten(2)[0]
    assert torch.pdist(latents.T).min() > 1e-3


def test_patches_are_put_back_in_their_places() -> None:
    """The decoder's output of a latent lies in that latent's patch: blocks that mix nothing show it."""
    decoder = ViTConfig(blocks=1, width=16, heads=2).build_decoder(1, 4, 5)
    decoder.blocks = torch.nn.Sequential()
    latents = torch.zeros(1, 5, 2, 3)
    changed = latents.clone()
    changed[0, :, 1, 2] = 1
    moved = (decoder(changed) - decoder(latents))[0, 0].abs() > 1e-6
    assert moved[4:, 8:].any()
    assert not moved[:4].any()
    assert not moved[:, :8].any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"blocks": 0}, "blocks is 0, expected 1 or more"),
        ({"width": 30}, "width is 30, expected a multiple of 4 and of 4 heads"),
        ({"width": 32, "heads": 3}, "width is 32, expected a multiple of 4 and of 3 heads"),
    ],
)
def test_configurations_that_are_refused(flags: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ViTConfig(**flags)
