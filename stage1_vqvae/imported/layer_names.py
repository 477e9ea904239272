"""What the layers of a VQGAN are called in the files of each family."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rasterwise.errors import InputError

CHOSEN_PREFIX = "first_stage_model."
"""Of two VQGANs in one file, such as those of images and of their conditions, the one that is meant."""


@dataclass(frozen=True)
class LayerNames:
    """The names of one family. All of them have the same layers; ``{}`` is a number.

    Attributes:
        family: Whose files they are.
        encoder_level: Each resolution of the encoder, the highest first.
        decoder_level: Each resolution of the decoder.
        block: Residual blocks in a level.
        attention: Attention blocks in a level.
        downsample: The convolution at the end of a level of the encoder.
        upsample: The convolution at the end of a level of the decoder.
        middle: The two residual blocks of the middle with the attention block between them.
        norm: The norm of an attention block.
        query_key_value: Its projections.
        projection: Its last layer.
        shortcut: The 1×1 convolution of a residual block that changes the width.
        last_norm: Before the last convolution of each network.
        from_grid: Whether the decoder's levels are counted from the code grid, and not from the image.
        normalised: Whether latents and code vectors are taken at length 1.
    """

    family: str
    encoder_level: str
    decoder_level: str
    block: str = "block.{}"
    attention: str = "attn.{}"
    downsample: str = "downsample.conv"
    upsample: str = "upsample.conv"
    middle: tuple[str, str, str] = ("mid.block_1", "mid.attn_1", "mid.block_2")
    norm: str = "norm"
    query_key_value: tuple[str, str, str] = ("q", "k", "v")
    projection: str = "proj_out"
    shortcut: str = "nin_shortcut"
    last_norm: str = "norm_out"
    from_grid: bool = True
    normalised: bool = False

    @property
    def marker(self) -> str:
        """A weight that every file of the family has."""
        return f"{self.encoder_level.format(0)}.{self.block.format(0)}.conv1.weight"

    def prefixes(self, names: Iterable[str]) -> set[str]:
        """What stands before this family's names among the names of a file's weights."""
        found = {name.removesuffix(self.marker) for name in names if name.endswith(self.marker)}
        return {prefix for prefix in found if not prefix or prefix.endswith(".")}


TAMING = LayerNames("taming-transformers", "encoder.down.{}", "decoder.up.{}", from_grid=False)
"""Also latent diffusion's VQ models."""
JANUS = LayerNames("transformers' JanusVQVAE", "encoder.down.{}", "decoder.up.{}", normalised=True)
LLAMAGEN = LayerNames(
    "LlamaGen",
    "encoder.conv_blocks.{}",
    "decoder.conv_blocks.{}",
    block="res.{}",
    middle=("mid.0", "mid.1", "mid.2"),
    normalised=True,
)
DIFFUSERS = LayerNames(
    "diffusers' VQModel",
    "encoder.down_blocks.{}",
    "decoder.up_blocks.{}",
    block="resnets.{}",
    attention="attentions.{}",
    downsample="downsamplers.0.conv",
    upsample="upsamplers.0.conv",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    norm="group_norm",
    query_key_value=("to_q", "to_k", "to_v"),
    projection="to_out.0",
    shortcut="conv_shortcut",
    last_norm="conv_norm_out",
)
OLD_DIFFUSERS = replace(DIFFUSERS, query_key_value=("query", "key", "value"), projection="proj_attn")
"""Files of 2022."""
EMU3 = LayerNames("transformers' Emu3VQVAE", "encoder.down_block.down.{}", "decoder.up_block.up.{}")
"""Only to be recognized by: its layers are others."""
FAMILIES = (TAMING, LLAMAGEN, DIFFUSERS, EMU3)


@dataclass(frozen=True)
class Found:
    """A tokenizer among the weights of a file.

    Attributes:
        layers: Of its family.
        prefix: What stands before its names.
    """

    layers: LayerNames
    prefix: str


def find_tokenizer(names: Iterable[str], where: object, prefix: str | None = None) -> Found:
    """Recognize a tokenizer by the names of the weights.

    Args:
        names: Of all the weights of a file, which may be those of a larger model.
        where: Names the file in an error.
        prefix: Which one of several; by default the only one, or that of ``first_stage_model``.

    Raises:
        InputError: There is none, or there are several.
    """
    names = list(names)
    found = {start: layers for layers in FAMILIES for start in layers.prefixes(names)}
    if prefix is None and len(found) > 1 and CHOSEN_PREFIX in found:
        prefix = CHOSEN_PREFIX
    if prefix is not None:
        prefix = f"{prefix.rstrip('.')}." if prefix else ""
        found = {start: layers for start, layers in found.items() if start == prefix}
    if not found:
        begins = f" that begins with {prefix!r}" if prefix else ""
        expected = ", ".join(layers.family for layers in (TAMING, LLAMAGEN, JANUS, DIFFUSERS, EMU3))
        raise InputError(
            f"{where} holds no tokenizer that is known{begins} (its first weight is {_first(names)}); expected one of "
            f"{expected}"
        )
    if len(found) > 1:
        raise InputError(
            f"{where} holds {len(found)} tokenizers; name one with --prefix: {', '.join(sorted(found))}"
        )
    ((start, layers),) = found.items()
    if layers is TAMING and f"{start}decoder.up.0.upsample.conv.weight" in names:
        layers = JANUS  # the same names, but the decoder's levels are counted from the other end
    if f"{start}encoder.mid_block.attentions.0.query.weight" in names:
        layers = OLD_DIFFUSERS
    return Found(layers, start)


def _first(names: list[str]) -> str:
    return repr(names[0]) if names else "none"
