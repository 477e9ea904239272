"""A VQGAN that others trained, as our VQ-VAE: its architecture by the shapes of its weights, and its weights."""

from __future__ import annotations

import math
from itertools import count
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.models.pretrained import load_weights
from stage1_vqvae.autoencoders.attention import AttentionConfig
from stage1_vqvae.imported.layer_map import layer_map
from stage1_vqvae.imported.layer_names import LayerNames
from stage1_vqvae.quantizers.gumbel import GumbelQuantizerConfig
from stage1_vqvae.quantizers.l2 import L2QuantizerConfig
from stage1_vqvae.quantizers.table import AnyQuantizerConfig
from stage1_vqvae.quantizers.vector import VectorQuantizerConfig
from stage1_vqvae.tokenizers.learned import FACTORS
from stage1_vqvae.tokenizers.vqvae import VQVAE, VQVAEConfig

PixelRange = Literal["signed", "unit"]
"""What images were when a tokenizer was trained: [-1, 1] or [0, 1]."""

CODEBOOK = "quantize.embedding.weight"
GUMBEL_CODEBOOK = "quantize.embed.weight"
AVERAGED = "model_ema."
"""Before the names of averaged weights, from which latent diffusion takes the dots."""
UNUSED = ("loss.", "discriminator.", "lpips.", "colorize")
"""How the names begin of what only a training needs."""
COUNTS = ("quantize.codebook_used", "quantize.embedding.cluster_size", "quantize.embedding.embed_avg")
"""What says only how often codes were used."""


def vqgan_from(
    weights: dict[str, Tensor],
    names: LayerNames,
    where: object,
    *,
    groups: int = 32,
    pixel_range: PixelRange = "signed",
) -> VQVAE:
    """Build our VQ-VAE with the weights of a VQGAN, in evaluation mode.

    Args:
        weights: Float32 or float64, under the family's names. Averaged ones beside them are taken instead.
        names: The family's.
        where: Names the file in errors.
        groups: Of its norms.
        pixel_range: Of its images.

    Raises:
        InputError: The weights are those of another network, or of an architecture that is not there.
    """
    weights = _joined(_averaged(weights), where)
    config = architecture_of(weights, names, where, groups, pixel_range)
    layers = layer_map(names, config.autoencoder, config.factor)  # type: ignore[arg-type]
    codebook = GUMBEL_CODEBOOK if config.quantizer.kind == "gumbel" else CODEBOOK
    needed = [
        f"{their}.{part}" for theirs in layers.values() for their in theirs for part in ("weight", "bias")
    ]
    _refuse_others(weights, [*needed, codebook], where)
    model = VQVAE(config)
    ours = _codebook(weights[codebook], config.quantizer)
    for name, theirs in layers.items():
        for part in ("weight", "bias"):
            expected = tuple(model.get_parameter(f"{name}.{part}").shape)
            expected = (expected[0] // len(theirs), *expected[1:])
            ours[f"{name}.{part}"] = torch.cat(
                [
                    _of_shape(weights[f"{their}.{part}"], expected, f"{where} has {their}.{part}")
                    for their in theirs
                ]
            )
    load_weights(model, ours, where, "the architecture of its layers")
    return model.eval()


def _averaged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, averaged ones in place of those that were trained last."""
    return {
        name: weights.get(f"{AVERAGED}{name.replace('.', '')}", value)
        for name, value in weights.items()
        if not name.startswith(AVERAGED)
    }


def _joined(weights: dict[str, Tensor], where: object) -> dict[str, Tensor]:
    """The weights, the projection of a Gumbel-softmax to its logits being one layer with the one before it."""
    parts = ["quantize.proj.weight", "quantize.proj.bias", "quant_conv.weight", "quant_conv.bias"]
    if any(name not in weights for name in parts):
        return weights
    projection, bias, weight, before = (
        weights[name].flatten(1) if "w" in name[-6:] else weights[name] for name in parts
    )
    if projection.shape[1] != len(weight):
        raise InputError(
            f"{where} has {parts[0]} for {projection.shape[1]} channels, and {len(weight)} come before it"
        )
    joined = {parts[2]: (projection @ weight)[..., None, None], parts[3]: projection @ before + bias}
    return {name: value for name, value in weights.items() if name not in parts[:2]} | joined


def architecture_of(
    weights: dict[str, Tensor],
    names: LayerNames,
    where: object,
    groups: int = 32,
    pixel_range: PixelRange = "signed",
) -> VQVAEConfig:
    """The configuration, as the names and shapes of the weights tell it; see ``vqgan_from``."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights or weights[name].ndim < 2:
            raise InputError(f"{where} holds weights of {names.family}, but no {name}")
        return tuple(weights[name].shape)

    def block(level: int, number: int) -> str:
        return f"{names.encoder_level.format(level)}.{names.block.format(number)}.conv1.weight"

    def attends(level: int) -> bool:
        attention = f"{names.encoder_level.format(level)}.{names.attention.format(0)}"
        return f"{attention}.{names.norm}.weight" in weights

    levels = next(level for level in count() if block(level, 0) not in weights)
    widths = [shape(block(level, 0))[0] for level in range(levels)]
    first, channels = shape("encoder.conv_in.weight")[:2]
    factor, outputs = 2 ** (levels - 1), shape("decoder.conv_out.weight")[0]
    if factor not in FACTORS:
        raise InputError(f"{where} has {levels} resolutions, so factor {factor}; expected 2, 4, 8 or 16")
    if first != widths[0]:
        raise InputError(
            f"{where} widens {first} channels to {widths[0]} in its first block, expected as many"
        )
    if any(map(attends, range(levels - 1))):
        raise InputError(
            f"{where} has attention at higher resolutions than the code grid's, which is not supported"
        )
    if outputs != channels:
        raise InputError(f"{where} takes images of {channels} channels and gives {outputs}, expected as many")
    width = math.gcd(*widths)
    middle = f"encoder.{names.middle[1]}.{names.norm}.weight" in weights
    return VQVAEConfig(
        channels=channels,
        factor=factor,
        quantizer=_quantizer(weights, names, where),
        autoencoder=AttentionConfig(
            width=width,
            multipliers=tuple(one // width for one in widths),
            blocks=next(number for number in count() if block(0, number) not in weights),
            bottleneck=shape("encoder.conv_out.weight")[0],
            attention="grid" if attends(levels - 1) else "middle" if middle else "none",
            groups=groups,
            pixel_range=pixel_range,
        ),
    )


def _quantizer(weights: dict[str, Tensor], names: LayerNames, where: object) -> AnyQuantizerConfig:
    """What quantizes, as the name of its codebook tells it."""
    name = next((name for name in (CODEBOOK, GUMBEL_CODEBOOK) if name in weights), CODEBOOK)
    if name not in weights or weights[name].ndim != 2:
        raise InputError(f"{where} holds weights of {names.family}, but no codebook ({name})")
    size, width = weights[name].shape
    if name == GUMBEL_CODEBOOK:
        return GumbelQuantizerConfig(codebook_size=size, code_width=width)
    owner = L2QuantizerConfig if names.normalised else VectorQuantizerConfig
    return owner(codebook_size=size, code_width=width)


def _codebook(vectors: Tensor, config: AnyQuantizerConfig) -> dict[str, Tensor]:
    """Code vectors ``(K, D)`` under our names."""
    if config.kind == "gumbel":
        return {"quantizer.codebook": vectors}
    if config.kind == "l2":
        vectors = F.normalize(vectors, dim=-1)
    book = "quantizer.codebook._codebook"
    return {
        f"{book}.initted": torch.tensor(True),
        f"{book}.cluster_size": torch.ones(1, len(vectors)),
        f"{book}.embed_avg": vectors[None],
        f"{book}.embed": vectors[None],
    }


def _refuse_others(weights: dict[str, Tensor], needed: list[str], where: object) -> None:
    """Raise InputError where weights lack, or where some belong to something else."""
    present, known = weights.keys(), {*needed, *COUNTS}
    missing = [name for name in needed if name not in present]
    unknown = [name for name in present if name not in known and not name.startswith(UNUSED)]
    said = [
        f"{what} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for what, names in (("lacks", missing), ("has the unknown", unknown))
        if names
    ]
    if said:
        raise InputError(f"{where} is of another network: it {' and '.join(said)}")


def _of_shape(weight: Tensor, expected: tuple[int, ...], said: str) -> Tensor:
    """A weight of the shape that a layer of ours has; a linear layer is a 1×1 convolution."""
    shaped = weight[..., None, None] if weight.ndim == 2 and len(expected) == 4 else weight
    if tuple(shaped.shape) != expected:
        raise InputError(
            f"{said} of shape {tuple(weight.shape)}, expected {expected}, as its other layers have it"
        )
    return shaped
