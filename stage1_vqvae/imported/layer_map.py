"""Which of our layers is which of a VQGAN's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from stage1_vqvae.autoencoders.attention import AttentionConfig
from stage1_vqvae.imported.layer_names import LayerNames

Pairs: TypeAlias = Iterator[tuple[str, tuple[str, ...]]]
"""Names of our layers, each with the names of the layers that it is. Every layer has a weight and a bias."""


def layer_map(names: LayerNames, config: AttentionConfig, factor: int) -> dict[str, tuple[str, ...]]:
    """Each of our layers with those of the family: one, but queries, keys and values are one layer here."""
    return dict(_pairs(names, config, factor))


def _pairs(names: LayerNames, config: AttentionConfig, factor: int) -> Pairs:
    widths = config.widths(factor)
    last = len(widths) - 1
    for network in ("encoder", "decoder"):
        yield f"{network}.first", (f"{network}.conv_in",)
        yield from _middle(names, network, attends=config.attention != "none")
    for number, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
        yield from _level(
            names,
            f"encoder.levels.{number}",
            names.encoder_level.format(number),
            blocks=config.blocks,
            widened=before != width,
            attends=number == last and config.attention == "grid",
            resampling="" if number == last else names.downsample,
        )
    for number, (before, width) in enumerate(zip([widths[-1], *widths[::-1]], widths[::-1], strict=False)):
        yield from _level(
            names,
            f"decoder.levels.{number}",
            names.decoder_level.format(number if names.from_grid else last - number),
            blocks=config.blocks + 1,
            widened=before != width,
            attends=number == 0 and config.attention == "grid",
            resampling="" if number == last else names.upsample,
        )
    yield "encoder.last.0", (f"encoder.{names.last_norm}",)
    yield "encoder.last.2", ("encoder.conv_out",)
    yield "encoder.projection", ("quant_conv",)
    yield "decoder.projection", ("post_quant_conv",)
    yield "decoder.head.0", (f"decoder.{names.last_norm}",)
    yield "decoder.last", ("decoder.conv_out",)


def _middle(names: LayerNames, network: str, *, attends: bool) -> Pairs:
    first, attention, second = (f"{network}.{name}" for name in names.middle)
    yield from _residual(names, f"{network}.middle.0", first)
    if attends:
        yield from _attention(names, f"{network}.middle.1", attention)
    yield from _residual(names, f"{network}.middle.{1 + attends}", second)


def _level(
    names: LayerNames, ours: str, theirs: str, *, blocks: int, widened: bool, attends: bool, resampling: str
) -> Pairs:
    """One resolution: residual blocks, the first of which may change the width, attention, and resampling."""
    step = 1 + attends
    for number in range(blocks):
        block = f"{theirs}.{names.block.format(number)}"
        yield from _residual(names, f"{ours}.{step * number}", block, widened=widened and number == 0)
        if attends:
            attention = f"{theirs}.{names.attention.format(number)}"
            yield from _attention(names, f"{ours}.{step * number + 1}", attention)
    if resampling:
        yield f"{ours}.{step * blocks}.conv", (f"{theirs}.{resampling}",)


def _residual(names: LayerNames, ours: str, theirs: str, *, widened: bool = False) -> Pairs:
    for part in ("norm1", "conv1", "norm2", "conv2"):
        yield f"{ours}.{part}", (f"{theirs}.{part}",)
    if widened:
        yield f"{ours}.shortcut", (f"{theirs}.{names.shortcut}",)


def _attention(names: LayerNames, ours: str, theirs: str) -> Pairs:
    yield f"{ours}.norm", (f"{theirs}.{names.norm}",)
    yield f"{ours}.qkv", tuple(f"{theirs}.{part}" for part in names.query_key_value)
    yield f"{ours}.projection", (f"{theirs}.{names.projection}",)
