"""The weights of blocks in the layout that cached decoding reads, with all that multiplies them folded in."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.decoding.packed_linear import PackedLinear
from stage2_prior.transformer.blocks import NORM_EPS, Attention, Rotary, TransformerBlock


class HeadNorm(NamedTuple):
    """The normalisation of queries, or of queries and keys: gain and bias, broadcast to ``(R, 1 or 2, h)``."""

    gain: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise ``(R, 1 or 2, h)``."""
        return F.layer_norm(x, x.shape[-1:]) * self.gain + self.bias


class CrossWeights(NamedTuple):
    """Attention to a context: its query and output matrices, and the context's keys and values.

    ``keys`` are ``(R, h, S)``, ``values`` ``(R, S, h)``; ``gain`` as in ``LayerWeights``.
    """

    query: PackedLinear
    norm: HeadNorm | None
    keys: Tensor
    values: Tensor
    out: PackedLinear
    gain: Tensor | None


class LayerWeights(NamedTuple):
    """A block's matrices, with all that multiplies them folded in.

    ``attention_gain`` and ``mlp_gain`` are those of normalisations of what is added to the stream; None where
    what enters is normalised, whose gains the matrices hold.
    """

    qkv: PackedLinear
    attention_out: PackedLinear
    gate: PackedLinear
    up: PackedLinear
    mlp_out: PackedLinear
    qk_norm: HeadNorm | None
    attention_gain: Tensor | None
    mlp_gain: Tensor | None
    cross: CrossWeights | None


def layer_weights(block: TransformerBlock, rows: int, context: Tensor | None = None) -> LayerWeights:
    """A block's weights, copied.

    Args:
        block: With cross-attention where there is a context.
        rows: How many are decoded at once.
        context: ``(B, S, D)``.
    """
    attention, mlp, pre = block.self_attn, block.mlp, block.norm_order == "pre"
    scale = 1 / math.sqrt(attention.head_width)
    query = attention.q_proj.weight
    query = paired_rows(query * scale if attention.q_norm is None else query, attention)
    key = paired_rows(attention.k_proj.weight, attention)
    value = attention.v_proj.weight.unflatten(0, (attention.heads, -1))
    # (heads, 3, head width, D), so that a head's query, key and value lie together
    qkv = torch.stack([query, key, value], 1).flatten(0, 2)
    norms = block.input_layernorm.weight, block.post_attention_layernorm.weight
    return LayerWeights(
        after_norm(qkv, norms[0] if pre else None, rows),
        PackedLinear(attention.o_proj.weight, rows=rows),
        after_norm(mlp.gate_proj.weight, norms[1] if pre else None, rows),
        after_norm(mlp.up_proj.weight, norms[1] if pre else None, rows),
        PackedLinear(mlp.down_proj.weight, rows=rows),
        _qk_norm(attention, scale),
        None if pre else norms[0].clone(),
        None if pre else norms[1].clone(),
        None if context is None else _cross_weights(block, rows, context),
    )


def after_norm(weight: Tensor, gain: Tensor | None, rows: int) -> PackedLinear:
    """A matrix ``(outputs, inputs)`` that follows a normalisation, for what is divided by √(Σx² + D·eps) alone."""
    return PackedLinear(weight if gain is None else weight * (gain * math.sqrt(len(gain))), rows=rows)


def rms_normalised(x: Tensor, gain: Tensor) -> Tensor:
    """As ``nn.RMSNorm``."""
    return F.rms_norm(x, x.shape[-1:], gain, NORM_EPS)


def rotations(angles: Tensor, dtype: torch.dtype) -> Tensor:
    """What each pair of a head's query, key and value is multiplied with, complex ``(..., 3 · h / 2)``.

    Values are not rotated: theirs is 1, which costs less than to leave them out of the product.

    Args:
        angles: float64 ``(..., h / 2)``, one for each pair.
        dtype: Of the weights.
    """
    of_pairs = torch.polar(torch.ones_like(angles), angles)
    found = torch.cat([of_pairs, of_pairs, torch.ones_like(of_pairs)], -1)
    return found.to(torch.complex128 if dtype == torch.float64 else torch.complex64)


def fill(
    memory: Tensor,
    blocks: list[TransformerBlock],
    x: Tensor,
    rotary: Rotary | None,
    masks: list[Tensor | None] | None = None,
) -> None:
    """Pass a prefix through the blocks once, and keep its keys and values.

    Args:
        memory: Of a KV cache, ``(depth, 2, R, N, h)``.
        blocks: Without cross-attention.
        x: ``(B, P, D)``.
        rotary: Of its positions.
        masks: For each block; None for causal attention.
    """
    for layer, block in enumerate(blocks):
        entering = block.input_layernorm(x) if block.norm_order == "pre" else x
        key, value = block.self_attn.keys_and_values(entering, rotary)
        memory[layer, 0, :, : x.shape[1]] = paired_features(key).flatten(0, 1)
        memory[layer, 1, :, : x.shape[1]] = value.flatten(0, 1)
        x = block(x, rotary, masks[layer] if masks else None)


def paired_features(x: Tensor) -> Tensor:
    """Features ``(..., h)`` of a head, the two of each pair side by side."""
    return x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def paired_rows(weight: Tensor, attention: Attention) -> Tensor:
    """A head's i-th row is rotated with the i-th of its second half: put the two side by side, ``(heads, h, D)``."""
    return paired_features(weight.unflatten(0, (attention.heads, -1)).transpose(1, 2)).transpose(1, 2)


def _qk_norm(attention: Attention, scale: float) -> HeadNorm | None:
    if attention.q_norm is None or attention.k_norm is None:
        return None

    def both(query: Tensor, key: Tensor) -> Tensor:
        return torch.stack([paired_features(query * scale), paired_features(key)])

    return HeadNorm(
        both(attention.q_norm.weight, attention.k_norm.weight),
        both(attention.q_norm.bias, attention.k_norm.bias),
    )


def _cross_weights(block: TransformerBlock, rows: int, context: Tensor) -> CrossWeights:
    attention, norm, pre = block.cross_attn, block.cross_attn_layernorm, block.norm_order == "pre"
    assert attention is not None
    assert norm is not None
    scale = 1 / math.sqrt(attention.head_width)
    keys, values = (part.flatten(0, 1) for part in attention.keys_and_values(context))
    query, head_norm = attention.q_proj.weight, None
    if attention.q_norm is None:
        query = query * scale
    else:
        head_norm = HeadNorm(attention.q_norm.weight * scale, attention.q_norm.bias * scale)
    return CrossWeights(
        after_norm(query, norm.weight if pre else None, rows),
        head_norm,
        keys.transpose(1, 2).contiguous(),
        values.contiguous(),
        PackedLinear(attention.o_proj.weight, rows=rows),
        None if pre else norm.weight.clone(),
    )
