"""Cached decoding of the transformer prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from rasterwise.decoding.kv_cache import KVCache
from rasterwise.decoding.packed_linear import PackedLinear
from rasterwise.decoding.transformer import TransformerDecoder
from rasterwise.symbols.condition import Condition
from stage2_prior.transformer.network import TransformerPriorNetwork


class Layer(NamedTuple):
    """A layer's matrices, with all that multiplies them folded in."""

    qkv: PackedLinear
    attention_out: PackedLinear
    gate: PackedLinear
    up: PackedLinear
    mlp_out: PackedLinear


class LlamaDecoder(TransformerDecoder):
    """Decodes a Llama.

    The weights are copied, in the layout that decoding reads, when the decoder is made: training the model
    afterwards does not change it. All memory that decoding fills is allocated then, too.

    The cost law. A position takes the matrix products of one token for each image, which are those of a
    teacher-forced pass cut into N pieces. It reads the cache once, 2 · depth · D numbers for each image and earlier
    position, and all weights once, however small the batch. At batch 1 reading the weights is most of the time,
    and the dispatch of 17 operations a layer the rest.

    Of the ways to attend with one query on a CPU, batched matrix products take up to a third less time than
    ``scaled_dot_product_attention`` where time counts, at many images and positions; it is faster at batch 1.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: TransformerPriorNetwork, batch_size: int, condition: Condition | None) -> None:
        llama, config = model.llama.model, model.llama.config
        heads, width, dtype = config.num_attention_heads, config.hidden_size, model.start.weight.dtype
        self.heads, self.head_width = heads, width // heads
        memory = torch.empty(
            len(llama.layers), 2, batch_size * heads, model.grid.size, self.head_width,
            dtype=dtype, device=model.device,
        )  # fmt: skip
        super().__init__(
            model.grid,
            batch_size,
            cache=KVCache(memory),
            stream=model.start(model.class_index(condition, batch_size)),
            symbol_vectors=llama.embed_tokens.weight.clone(),
            head=_after_norm(model.llama.lm_head.weight, llama.norm.weight, batch_size),
        )
        self.layers = [_packed(layer, batch_size) for layer in llama.layers]
        self.rotations = _rotations(llama.rotary_emb.angles, dtype).to(model.device)
        # Half precisions have no complex numbers of their own: theirs are rotated in float32.
        self.rotated_dtype = torch.promote_types(dtype, torch.float32)
        self.floor = torch.full((1, 1, 1), config.rms_norm_eps, dtype=dtype, device=model.device)

    def _pass_layers(self, stream: Tensor) -> Tensor:
        rotation, width = self.cache.row_of(self.rotations), stream.shape[1]
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(self._normalised(stream)).view(-1, 3, self.head_width)
            mixed = self.cache.attend(index, self._rotated(qkv, rotation)).view(-1, width)
            stream = layer.attention_out.added(mixed, stream)
            normed = self._normalised(stream)
            hidden = layer.up.multiplied(normed, layer.gate.silu(normed))
            stream = layer.mlp_out.added(hidden, stream)
        return self._normalised(stream)

    def _rotated(self, qkv: Tensor, rotation: Tensor) -> Tensor:
        """Rotary positions: each pair of a query or a key is a complex number, times e^(i · angle)."""
        exact = qkv.to(self.rotated_dtype)
        pairs = torch.view_as_complex(exact.view(-1, self.heads, rotation.shape[-1], 2))
        pairs.mul_(rotation.view(-1, 1, rotation.shape[-1]))
        return exact.to(qkv.dtype)

    def _normalised(self, stream: Tensor) -> Tensor:
        """x / √(mean x² + eps), the gain being in the weights: ``F.rms_norm`` dispatches three times as much."""
        row, column = stream[:, None], stream[:, :, None]
        mean_square = torch.baddbmm(self.floor, row, column, alpha=1 / stream.shape[1])
        return stream * mean_square.rsqrt_()[:, :, 0]


def _after_norm(weight: Tensor, gain: Tensor, rows: int) -> PackedLinear:
    """A matrix ``(outputs, inputs)`` that follows a normalisation, for what ``_normalised`` gives."""
    return PackedLinear(weight * gain, rows=rows)


def _rotations(angles: Tensor, dtype: torch.dtype) -> Tensor:
    """What each pair of a head's query, key and value is multiplied with, complex ``(N, 3 · head width / 2)``.

    Values are not rotated: theirs is 1, which costs less than to leave them out of the product.
    """
    of_pairs = torch.polar(torch.ones_like(angles), angles)[:, : angles.shape[1] // 2]
    rotations = torch.cat([of_pairs, of_pairs, torch.ones_like(of_pairs)], 1)
    return rotations.to(torch.complex128 if dtype == torch.float64 else torch.complex64)


def _packed(layer: LlamaDecoderLayer, rows: int) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    head_width = attention.head_dim

    def by_head(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (-1, head_width))

    def paired(weight: Tensor) -> Tensor:
        """Llama rotates the i-th of a head's rows with the i-th of its second half: put the two side by side."""
        return by_head(weight).unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)

    query = paired(attention.q_proj.weight / math.sqrt(head_width))
    # (heads, 3, head width, D), so that a head's query, key and value lie together
    qkv = torch.stack([query, paired(attention.k_proj.weight), by_head(attention.v_proj.weight)], 1)
    gain = layer.post_attention_layernorm.weight
    return Layer(
        _after_norm(qkv.flatten(0, 2), layer.input_layernorm.weight, rows),
        PackedLinear(attention.o_proj.weight, rows=rows),
        _after_norm(mlp.gate_proj.weight, gain, rows),
        _after_norm(mlp.up_proj.weight, gain, rows),
        PackedLinear(mlp.down_proj.weight, rows=rows),
    )
