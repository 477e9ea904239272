"""Cached decoding of the transformer prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from rasterwise.decoding.kv_cache import KVCache
from rasterwise.decoding.transformer import TransformerDecoder
from rasterwise.symbols.condition import Condition
from stage2_prior.transformer.network import TransformerPriorNetwork


class LayerWeights(NamedTuple):
    """A layer's matrices, ``(inputs, outputs)``, with all that multiplies them folded in."""

    qkv: Tensor
    attention_out: Tensor
    gate_up: Tensor
    mlp_out: Tensor


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
        rows, head_width = batch_size * heads, width // heads
        self.layers = [_layer_weights(layer) for layer in llama.layers]
        self.rotations = _rotations(llama.rotary_emb.angles, dtype).to(model.device)

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=model.device)

        super().__init__(
            model.grid,
            batch_size,
            cache=KVCache(empty(len(self.layers), 2, rows, model.grid.size, head_width)),
            stream=model.start(model.class_index(condition, batch_size)),
            symbol_vectors=llama.embed_tokens.weight.clone(),
            head=_after_norm(model.llama.lm_head.weight, llama.norm.weight),
        )
        self.stream_row, self.stream_column = self.stream[:, None], self.stream[:, :, None]
        self.normed = empty(batch_size, width)
        self.mean_square, self.floor = empty(batch_size, 1, 1), empty(batch_size, 1, 1)
        self.mean_square_of_row = self.mean_square[:, :, 0]
        self.floor.fill_(config.rms_norm_eps)
        self.qkv = empty(rows, 3, head_width)
        self.query, self.new_entry = self.qkv[:, :1], self.qkv[:, 1:].transpose(0, 1)
        # Half precisions have no complex numbers of their own: theirs are rotated in float32.
        rotated_dtype = torch.promote_types(dtype, torch.float32)
        self.rotated = self.qkv if rotated_dtype == dtype else empty(rows, 3, head_width, dtype=rotated_dtype)
        self.pairs = torch.view_as_complex(self.rotated.view(rows, -1, 2))
        self.mixed = empty(batch_size, width)
        self.mixed_heads = self.mixed.view(rows, 1, head_width)
        self.gate_up = empty(batch_size, self.layers[0].gate_up.shape[1])
        self.gate, self.up = self.gate_up.chunk(2, 1)

    def _pass_layers(self) -> None:
        rotation, qkv = self.cache.row_of(self.rotations), self.qkv.view(self.batch_size, -1)
        for layer, weights in enumerate(self.layers):
            torch.mm(self._normalised(), weights.qkv, out=qkv)
            self._rotate(rotation)
            self.cache.attend(layer, self.query, self.new_entry, self.mixed_heads)
            self.stream.addmm_(self.mixed, weights.attention_out)
            torch.mm(self._normalised(), weights.gate_up, out=self.gate_up)
            F.silu(self.gate, inplace=True)
            self.gate.mul_(self.up)
            self.stream.addmm_(self.gate, weights.mlp_out)

    def _rotate(self, rotation: Tensor) -> None:
        """Rotary positions: each pair of a query or a key is a complex number, times e^(i · angle)."""
        if self.rotated is self.qkv:
            self.pairs.mul_(rotation)
        else:
            self.rotated.copy_(self.qkv)
            self.pairs.mul_(rotation)
            self.qkv.copy_(self.rotated)

    def _normalised(self) -> Tensor:
        """x / √(mean x² + eps), the gain being in the weights: ``F.rms_norm`` dispatches three times as much."""
        torch.baddbmm(
            self.floor,
            self.stream_row,
            self.stream_column,
            alpha=1 / self.stream.shape[1],
            out=self.mean_square,
        )
        return torch.mul(self.stream, self.mean_square_of_row.rsqrt_(), out=self.normed)


def _after_norm(weight: Tensor, gain: Tensor) -> Tensor:
    """A matrix ``(outputs, inputs)`` that follows a normalisation, for what ``_normalised`` gives."""
    return (weight * gain).T.contiguous()


def _rotations(angles: Tensor, dtype: torch.dtype) -> Tensor:
    """What each pair of a head's query, key and value is multiplied with, complex ``(N, 3 · head width / 2)``.

    Values are not rotated: theirs is 1, which costs less than to leave them out of the product.
    """
    of_pairs = torch.polar(torch.ones_like(angles), angles)[:, : angles.shape[1] // 2]
    rotations = torch.cat([of_pairs, of_pairs, torch.ones_like(of_pairs)], 1)
    return rotations.to(torch.complex128 if dtype == torch.float64 else torch.complex64)


def _layer_weights(layer: LlamaDecoderLayer) -> LayerWeights:
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
    return LayerWeights(
        _after_norm(qkv.flatten(0, 2), layer.input_layernorm.weight),
        attention.o_proj.weight.clone().T,
        _after_norm(
            torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]), layer.post_attention_layernorm.weight
        ),
        mlp.down_proj.weight.clone().T,  # a matrix of more inputs than outputs is read faster so at batch 1
    )
