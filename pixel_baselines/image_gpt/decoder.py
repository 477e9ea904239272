"""Cached decoding of ImageGPT."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.image_gpt.network import GELU_SLOPE, Block, ImageGPTNetwork
from rasterwise.decoding.kv_cache import KVCache
from rasterwise.decoding.transformer import TransformerDecoder
from rasterwise.symbols.condition import Condition


class LayerWeights(NamedTuple):
    """A block's matrices, ``(inputs, outputs)``, with all that multiplies them folded in."""

    qkv: Tensor
    qkv_bias: Tensor
    attention_out: Tensor
    attention_out_bias: Tensor
    mlp_in: Tensor
    mlp_in_bias: Tensor
    mlp_out: Tensor
    mlp_out_bias: Tensor


class ImageGPTDecoder(TransformerDecoder):
    """Decodes an ImageGPT.

    The cost law. A position takes the matrix products of one token for each image, which are those of a
    teacher-forced pass cut into N pieces, and reads the cache once: 2 · depth · D numbers for each image and
    earlier position. A teacher-forced pass reads that from the processor's caches. The KV cache outgrows them
    (depth 8, D 256, 32×32 and 16 images: 268 MB in float32) and is read from memory. At batch 1 it is the weights
    that are read again at every position. 17 operations a layer are dispatched.

    One query attends by batched matrix products over ``(B · heads, T, head width)``: short measurements on
    a CPU gave them a fifth to two fifths less time than ``scaled_dot_product_attention``, and found keys
    stored transposed slower once the cache lies in memory.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: ImageGPTNetwork, batch_size: int, condition: Condition | None) -> None:
        config, grid = model.config, model.grid
        rows, head_width = batch_size * config.heads, config.width // config.heads
        self.layers = [_layer_weights(block) for block in model.blocks]  # type: ignore[arg-type]
        self.position_vectors = model.position.detach()

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=model.head.weight.dtype, device=model.device)

        super().__init__(
            grid,
            batch_size,
            cache=KVCache(empty(config.depth, 2, rows, grid.size, head_width)),
            stream=empty(batch_size, config.width).copy_(model.start_vectors(batch_size, condition)),
            symbol_vectors=model.symbol.weight.detach(),
            head=_after_norm(model.head.weight, model.norm.weight),
        )
        self.normed = empty(batch_size, config.width)
        self.square_sum, self.floor = empty(batch_size, 1, 1), empty(batch_size, 1, 1)
        self.floor.fill_(config.width * config.norm_eps)
        self.qkv = empty(batch_size, 3 * config.width)
        self.query = self.qkv.view(rows, 3, head_width)[:, :1]
        self.new_entry = self.qkv.view(rows, 3, head_width)[:, 1:].transpose(0, 1)
        self.mixed = empty(batch_size, config.width)
        self.mixed_heads = self.mixed.view(rows, 1, head_width)
        self.hidden = empty(batch_size, self.layers[0].mlp_in.shape[1])

    def _pass_layers(self) -> None:
        self.stream.add_(self.cache.row_of(self.position_vectors))
        for layer, weights in enumerate(self.layers):
            torch.addmm(weights.qkv_bias, self._normalised(), weights.qkv, out=self.qkv)
            self.cache.attend(layer, self.query, self.new_entry, self.mixed_heads)
            self.stream.addmm_(self.mixed, weights.attention_out).add_(weights.attention_out_bias)
            torch.addmm(weights.mlp_in_bias, self._normalised(), weights.mlp_in, out=self.hidden)
            F.silu(self.hidden, inplace=True)
            self.stream.addmm_(self.hidden, weights.mlp_out).add_(weights.mlp_out_bias)

    def _normalised(self) -> Tensor:
        """x / √(Σx² + D·eps): torch's rms_norm takes 2 to 3 times as long. √D and the gain are in the weights."""
        torch.baddbmm(self.floor, self.stream[:, None], self.stream[:, :, None], out=self.square_sum)
        return torch.mul(self.stream, self.square_sum.rsqrt_()[:, :, 0], out=self.normed)


def _after_norm(weight: Tensor, gain: Tensor) -> Tensor:
    """A matrix ``(outputs, inputs)`` that follows a normalisation, for what ``_normalised`` gives."""
    return (weight * (gain * math.sqrt(len(gain)))).T.contiguous()


def _layer_weights(block: Block) -> LayerWeights:
    def by_head(projection: Tensor) -> Tensor:
        """Rows from (3, heads, head width) to (heads, 3, head width), so that a head's three lie together;
        the query's times 1/√(head width)."""
        split = projection.unflatten(0, (3, block.heads, -1)).transpose(0, 1).clone()
        split[:, 0] /= math.sqrt(split.shape[2])
        return split.flatten(0, 2)

    return LayerWeights(
        _after_norm(by_head(block.qkv.weight), block.attention_norm.weight),
        by_head(block.qkv.bias),
        block.attention_out.weight.T.contiguous(),
        block.attention_out.bias.detach(),
        # silu(1.702 x) / 1.702 with both factors in the matrices around it
        _after_norm(block.mlp_in.weight * GELU_SLOPE, block.mlp_norm.weight),
        block.mlp_in.bias * GELU_SLOPE,
        (block.mlp_out.weight / GELU_SLOPE).T.contiguous(),
        block.mlp_out.bias.detach(),
    )
