"""The convolutional autoencoder with attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rasterwise.errors import InputError
from stage1_vqvae.autoencoders.attention import AttentionBlock, AttentionConfig, ResidualBlock


def test_attention_sees_everything() -> None:
    """Every position of the map has an influence on each of them; the norm, which mixes positions too, is taken out."""
    block = AttentionBlock(8).double()
    block.norm = nn.Identity()
    x = torch.randn(1, 8, 4, 5, dtype=torch.float64, requires_grad=True)
    for row, column in ((0, 0), (3, 4), (1, 2)):
        (gradient,) = torch.autograd.grad(block(x)[0, :, row, column].sum(), x)
        assert (gradient.abs().sum(1) > 0).all()


def test_attention_by_hand() -> None:
    """softmax(q·k / √C) v of the normalised map, projected and added."""
    block = AttentionBlock(8).double()
    x = torch.randn(2, 8, 3, 2, dtype=torch.float64)
    query, key, value = block.qkv(block.norm(x)).flatten(2).chunk(3, dim=1)
    weights = torch.einsum("bcn,bcm->bnm", query, key).div(8**0.5).softmax(-1)
    gathered = torch.einsum("bnm,bcm->bcn", weights, value).unflatten(2, (3, 2))
    assert torch.allclose(block(x), x + block.projection(gathered), atol=1e-12)


def test_where_attention_is() -> None:
    """At the code grid after every block and in the middle, or in the middle alone."""

    def count(module: nn.Module) -> int:
        return sum(isinstance(part, AttentionBlock) for part in module.modules())

    for blocks in (1, 2):
        grid = AttentionConfig(width=32, blocks=blocks)
        assert count(grid.build_encoder(3, 8, 4)) == blocks + 1
        assert count(grid.build_decoder(3, 8, 4)) == blocks + 2
        middle = AttentionConfig(width=32, blocks=blocks, attention="middle")
        assert count(middle.build_encoder(3, 8, 4)) == count(middle.build_decoder(3, 8, 4)) == 1


def copied(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy the weights of transformers' residual or attention block into ours."""
    state = {name.replace("nin_shortcut", "shortcut"): value for name, value in theirs.state_dict().items()}
    if isinstance(ours, AttentionBlock):
        for part in ("weight", "bias"):
            state[f"qkv.{part}"] = torch.cat([state.pop(f"{name}.{part}") for name in "qkv"])
            state[f"projection.{part}"] = state.pop(f"proj_out.{part}")
    ours.load_state_dict(state)


@pytest.mark.slow
def test_it_is_vqgan_layer_for_layer() -> None:
    """With the weights of transformers' VQGAN (Janus has it as LlamaGen trained it) both networks give the same."""
    from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

    their = JanusVQVAEConfig(
        embed_dim=4, latent_channels=6, channel_multiplier=[1, 2], num_embeddings=8, num_res_blocks=1
    )
    theirs = JanusVQVAE(their).double()
    config = AttentionConfig(width=128, blocks=1, bottleneck=6, multipliers=(1, 2))
    encoder, decoder = config.build_encoder(3, 2, 4).double(), config.build_decoder(3, 2, 4).double()
    encoder.projection.load_state_dict(theirs.quant_conv.state_dict())
    decoder.projection.load_state_dict(theirs.post_quant_conv.state_dict())
    for ours, other, levels, last in (
        (encoder, theirs.encoder, theirs.encoder.down, encoder.last[2]),
        (decoder, theirs.decoder, theirs.decoder.up, decoder.last),
    ):
        ours.first.load_state_dict(other.conv_in.state_dict())
        last.load_state_dict(other.conv_out.state_dict())
        (encoder.last if ours is encoder else decoder.head)[0].load_state_dict(other.norm_out.state_dict())
        for mine, name in zip(ours.middle, ("block_1", "attn_1", "block_2"), strict=True):
            copied(mine, getattr(other.mid, name))
        for mine, level in zip(ours.levels, levels, strict=True):
            residual = [part for part in mine if isinstance(part, ResidualBlock)]
            attention = [part for part in mine if isinstance(part, AttentionBlock)]
            for one, block in [
                *zip(residual, level.block, strict=True),
                *zip(attention, level.attn, strict=True),
            ]:
                copied(one, block)
            for name in ("downsample", "upsample"):
                if hasattr(level, name):
                    mine[-1].load_state_dict(getattr(level, name).state_dict())
    images, latents = torch.randn(2, 3, 8, 8).double(), torch.randn(2, 4, 4, 4).double()
    with torch.no_grad():
        assert torch.allclose(encoder(images), theirs.quant_conv(theirs.encoder(images)), atol=1e-10)
        assert torch.allclose(decoder(latents), theirs.decoder(theirs.post_quant_conv(latents)), atol=1e-10)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"width": 48}, "width is 48, expected a multiple of 32"),
        ({"blocks": 0}, "blocks is 0, expected 1 or more"),
    ],
)
def test_configurations_that_are_refused(flags: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AttentionConfig(**flags)


def test_multipliers_for_every_resolution() -> None:
    config = AttentionConfig(multipliers=(1, 2))
    assert config.widths(2) == [32, 64]
    with pytest.raises(
        InputError, match="2 multipliers were given, expected 3: one for each resolution of factor 4"
    ):
        config.build_encoder(3, 4, 8)
