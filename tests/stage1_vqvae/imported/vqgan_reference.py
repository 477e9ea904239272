"""A VQGAN as plain functions of a dictionary of weights, by the names that each family's own code gives them.

It was written from the published code's names and layers, and shares nothing with the importer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """How a family names what is in a network; ``up`` gets the level counted from the image, and how many there are."""

    down: Callable[[int], str]
    up: Callable[[int, int], str]
    block: str
    attention: str
    downsample: str
    upsample: str
    middle: tuple[str, str, str]
    norm: str
    query_key_value: tuple[str, str, str]
    output: str
    shortcut: str
    last_norm: str
    linear: bool = False
    normalised: bool = False


TAMING = Family(
    down=lambda level: f"encoder.down.{level}",
    up=lambda level, levels: f"decoder.up.{level}",
    block="block",
    attention="attn",
    downsample="downsample.conv",
    upsample="upsample.conv",
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    norm="norm",
    query_key_value=("q", "k", "v"),
    output="proj_out",
    shortcut="nin_shortcut",
    last_norm="norm_out",
)
LLAMAGEN = replace(
    TAMING,
    down=lambda level: f"encoder.conv_blocks.{level}",
    up=lambda level, levels: f"decoder.conv_blocks.{levels - 1 - level}",
    block="res",
    middle=("mid.0", "mid.1", "mid.2"),
    normalised=True,
)
DIFFUSERS = Family(
    down=lambda level: f"encoder.down_blocks.{level}",
    up=lambda level, levels: f"decoder.up_blocks.{levels - 1 - level}",
    block="resnets",
    attention="attentions",
    downsample="downsamplers.0.conv",
    upsample="upsamplers.0.conv",
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    norm="group_norm",
    query_key_value=("to_q", "to_k", "to_v"),
    output="to_out.0",
    shortcut="conv_shortcut",
    last_norm="conv_norm_out",
    linear=True,
)
OLD_DIFFUSERS = replace(DIFFUSERS, query_key_value=("query", "key", "value"), output="proj_attn")
FAMILIES = {"taming": TAMING, "llamagen": LLAMAGEN, "diffusers": DIFFUSERS, "old diffusers": OLD_DIFFUSERS}


@dataclass(frozen=True)
class Architecture:
    """Of a VQGAN. ``attention`` is "grid" or "middle" or "none"; ``groups`` are those of the norms."""

    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    channels: int = 3
    latent_channels: int = 6
    code_width: int = 4
    codes: int = 16
    attention: str = "grid"
    groups: int = 32
    gumbel: bool = False


def vqgan_weights(family: Family, of: Architecture, device: str = "cpu") -> Weights:
    """Random weights under the family's names, float64."""
    weights: Weights = {}

    def layer(name: str, *shape: int) -> None:
        scale = (sum(shape[1:]) + 1) ** -0.5
        weights[f"{name}.weight"] = torch.randn(shape, dtype=torch.float64, device=device) * (
            scale if shape[1:] else 1
        )
        weights[f"{name}.bias"] = torch.randn(shape[:1], dtype=torch.float64, device=device) * 0.1

    def residual(name: str, inputs: int, outputs: int) -> None:
        layer(f"{name}.norm1", inputs)
        layer(f"{name}.conv1", outputs, inputs, 3, 3)
        layer(f"{name}.norm2", outputs)
        layer(f"{name}.conv2", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.{family.shortcut}", outputs, inputs, 1, 1)

    def attention(name: str, width: int) -> None:
        layer(f"{name}.{family.norm}", width)
        for part in (*family.query_key_value, family.output):
            layer(f"{name}.{part}", width, width, *([] if family.linear else [1, 1]))

    def network(name: str, blocks: int) -> None:
        for level in range(levels)[:: 1 if name == "encoder" else -1]:
            place = family.down(level) if name == "encoder" else family.up(level, levels)
            inputs = widths[max(level - 1, 0)] if name == "encoder" else widths[min(level + 1, levels - 1)]
            for number in range(blocks):
                residual(
                    f"{place}.{family.block}.{number}",
                    inputs if number == 0 else widths[level],
                    widths[level],
                )
                if of.attention == "grid" and level == levels - 1:
                    attention(f"{place}.{family.attention}.{number}", widths[level])
            if name == "encoder" and level < levels - 1:
                layer(f"{place}.{family.downsample}", widths[level], widths[level], 3, 3)
            if name == "decoder" and level > 0:
                layer(f"{place}.{family.upsample}", widths[level], widths[level], 3, 3)
        first, between, second = (f"{name}.{part}" for part in family.middle)
        residual(first, widths[-1], widths[-1])
        if of.attention != "none":
            attention(between, widths[-1])
        residual(second, widths[-1], widths[-1])

    widths, levels = [of.width * multiplier for multiplier in of.multipliers], len(of.multipliers)
    layer("encoder.conv_in", widths[0], of.channels, 3, 3)
    network("encoder", of.blocks)
    layer(f"encoder.{family.last_norm}", widths[-1])
    layer("encoder.conv_out", of.latent_channels, widths[-1], 3, 3)
    layer("quant_conv", of.code_width, of.latent_channels, 1, 1)
    vectors = torch.randn(of.codes, of.code_width, dtype=torch.float64, device=device)
    if of.gumbel:
        layer("quantize.proj", of.codes, of.code_width, 1, 1)
        weights["quantize.embed.weight"] = vectors
    else:
        weights["quantize.embedding.weight"] = vectors
    layer("post_quant_conv", of.latent_channels, of.code_width, 1, 1)
    layer("decoder.conv_in", widths[-1], of.latent_channels, 3, 3)
    network("decoder", of.blocks + 1)
    layer(f"decoder.{family.last_norm}", widths[0])
    layer("decoder.conv_out", of.channels, widths[0], 3, 3)
    return weights


@dataclass(frozen=True)
class Reference:
    """Encoding and decoding by the weights."""

    family: Family
    of: Architecture
    weights: Weights

    def encode(self, pixels: Tensor) -> Tensor:
        """Images in the range of the training, ``(B, C, H, W)``, to codes ``(B, 1, h, w)``."""
        x, levels = self.convolved(pixels, "encoder.conv_in"), len(self.of.multipliers)
        for level in range(levels):
            place = self.family.down(level)
            for number in range(self.of.blocks):
                x = self.block(x, place, number)
            if level < levels - 1:
                x = F.pad(x, (0, 1, 0, 1))
                x = F.conv2d(x, *self.layer(f"{place}.{self.family.downsample}"), stride=2)
        x = self.middle(x, "encoder")
        x = self.convolved(F.silu(self.norm(x, f"encoder.{self.family.last_norm}")), "encoder.conv_out")
        x = F.conv2d(x, *self.layer("quant_conv"))
        if self.of.gumbel:
            return F.conv2d(x, *self.layer("quantize.proj")).argmax(1, keepdim=True)
        vectors = self.weights["quantize.embedding.weight"]
        if self.family.normalised:
            x, vectors = x / x.norm(dim=1, keepdim=True), vectors / vectors.norm(dim=1, keepdim=True)
        distances = (x[:, None] - vectors[None, :, :, None, None]).square().sum(2)
        return distances.argmin(1, keepdim=True)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes to images in the range of the training."""
        vectors = self.weights["quantize.embed.weight" if self.of.gumbel else "quantize.embedding.weight"]
        if self.family.normalised:
            vectors = vectors / vectors.norm(dim=1, keepdim=True)
        x = F.conv2d(vectors[codes[:, 0]].permute(0, 3, 1, 2), *self.layer("post_quant_conv"))
        x = self.middle(self.convolved(x, "decoder.conv_in"), "decoder")
        levels = len(self.of.multipliers)
        for level in reversed(range(levels)):
            place = self.family.up(level, levels)
            for number in range(self.of.blocks + 1):
                x = self.block(x, place, number)
            if level > 0:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self.convolved(x, f"{place}.{self.family.upsample}")
        return self.convolved(F.silu(self.norm(x, f"decoder.{self.family.last_norm}")), "decoder.conv_out")

    def layer(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def convolved(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, *self.layer(name), padding=1)

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.layer(name)
        grouped = x.unflatten(1, (self.of.groups, -1))
        centred = grouped - grouped.mean((2, 3, 4), keepdim=True)
        variance = centred.square().mean((2, 3, 4), keepdim=True)
        return (centred / (variance + 1e-6).sqrt()).flatten(1, 2) * weight[:, None, None] + bias[
            :, None, None
        ]

    def block(self, x: Tensor, place: str, number: int) -> Tensor:
        """A residual block, and attention where there is any."""
        x = self.residual(x, f"{place}.{self.family.block}.{number}")
        attention = f"{place}.{self.family.attention}.{number}"
        return self.attended(x, attention) if f"{attention}.{self.family.norm}.weight" in self.weights else x

    def middle(self, x: Tensor, network: str) -> Tensor:
        first, attention, second = (f"{network}.{name}" for name in self.family.middle)
        x = self.residual(x, first)
        if self.of.attention != "none":
            x = self.attended(x, attention)
        return self.residual(x, second)

    def residual(self, x: Tensor, name: str) -> Tensor:
        hidden = self.convolved(F.silu(self.norm(x, f"{name}.norm1")), f"{name}.conv1")
        hidden = self.convolved(F.silu(self.norm(hidden, f"{name}.norm2")), f"{name}.conv2")
        shortcut = f"{name}.{self.family.shortcut}"
        return hidden + (F.conv2d(x, *self.layer(shortcut)) if f"{shortcut}.weight" in self.weights else x)

    def attended(self, x: Tensor, name: str) -> Tensor:
        def mapped(value: Tensor, part: str) -> Tensor:
            weight, bias = self.layer(f"{name}.{part}")
            return torch.einsum("bihw,oi->bohw", value, weight.flatten(1)) + bias[:, None, None]

        normed = self.norm(x, f"{name}.{self.family.norm}")
        query, key, value = (mapped(normed, part).flatten(2) for part in self.family.query_key_value)
        weights = (torch.einsum("bcn,bcm->bnm", query, key) / x.shape[1] ** 0.5).softmax(-1)
        gathered = torch.einsum("bnm,bcm->bcn", weights, value).unflatten(2, x.shape[2:])
        return x + mapped(gathered, self.family.output)


def levels_of(pixels: Tensor, *, unit: bool = False) -> Tensor:
    """Images in the range of the training as uint8."""
    return (pixels if unit else pixels / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
