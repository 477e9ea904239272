"""Cached decoding of ImageGPT."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pixel_baselines.image_gpt.network import GELU_SLOPE, Block, ImageGPTNetwork
from rasterwise.decoding.kv_cache import KVCache
from rasterwise.decoding.packed_linear import PackedLinear
from rasterwise.decoding.transformer import TransformerDecoder
from rasterwise.symbols.condition import Condition


class Layer(NamedTuple):
    """A block's matrices and biases, with all that multiplies them folded in."""

    qkv: PackedLinear
    attention_out: PackedLinear
    mlp_in: PackedLinear
    mlp_out: PackedLinear


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
        positions: How many positions of a grid are passed through the layers at once.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: ImageGPTNetwork,
        batch_size: int,
        condition: Condition | None,
        *,
        positions: int = 1,
    ) -> None:
        rows = batch_size * positions
        config, grid, dtype = model.config, model.grid, model.head.weight.dtype
        self.head_width = config.width // config.heads
        memory = torch.empty(
            config.depth, 2, batch_size * config.heads, grid.size, self.head_width,
            dtype=dtype, device=model.device,
        )  # fmt: skip
        super().__init__(
            grid,
            batch_size,
            cache=KVCache(memory),
            stream=model.start_vectors(batch_size, condition).clone(memory_format=torch.contiguous_format),
            symbol_vectors=model.symbol.weight.detach().clone(),
            head=_after_norm(model.head.weight, None, model.norm.weight, rows),
        )
        self.layers = [_packed(block, rows) for block in model.blocks]  # type: ignore[arg-type]
        self.position_vectors = model.position.detach().clone()
        self.floor = torch.full(
            (), math.sqrt(config.width * config.norm_eps), dtype=dtype, device=model.device
        )

    def _pass_layers(self, stream: Tensor) -> Tensor:
        width = stream.shape[1]
        stream = stream + self.cache.row_of(self.position_vectors)
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(self._normalised(stream)).view(-1, 3, self.head_width)
            mixed = self.cache.attend(index, qkv).view(-1, width)
            stream = layer.attention_out.added(mixed, stream)
            stream = layer.mlp_out.added(layer.mlp_in.silu(self._normalised(stream)), stream)
        return self._normalised(stream)

    def _normalised(self, stream: Tensor) -> Tensor:
        """x / √(Σx² + D·eps): torch's rms_norm takes 2 to 3 times as long. √D and the gain are in the weights."""
        return stream / torch.linalg.vector_norm(stream, 2, 1, True).hypot_(self.floor)


def _after_norm(weight: Tensor, bias: Tensor | None, gain: Tensor, rows: int) -> PackedLinear:
    """A matrix ``(outputs, inputs)`` that follows a normalisation, for what ``_normalised`` gives."""
    return PackedLinear(weight * (gain * math.sqrt(len(gain))), bias, rows=rows)


def _packed(block: Block, rows: int) -> Layer:
    def by_head(projection: Tensor) -> Tensor:
        """Rows from (3, heads, head width) to (heads, 3, head width), so that a head's three lie together;
        the query's times 1/√(head width)."""
        split = projection.unflatten(0, (3, block.heads, -1)).transpose(0, 1).clone()
        split[:, 0] /= math.sqrt(split.shape[2])
        return split.flatten(0, 2)

    qkv_gain, mlp_gain = block.attention_norm.weight, block.mlp_norm.weight
    attention_out, mlp_in, mlp_out = block.attention_out, block.mlp_in, block.mlp_out
    return Layer(
        _after_norm(by_head(block.qkv.weight), by_head(block.qkv.bias), qkv_gain, rows),
        PackedLinear(attention_out.weight, attention_out.bias, rows=rows),
        # silu(1.702 x) / 1.702 with both factors in the matrices around it
        _after_norm(mlp_in.weight * GELU_SLOPE, mlp_in.bias * GELU_SLOPE, mlp_gain, rows),
        PackedLinear(mlp_out.weight / GELU_SLOPE, mlp_out.bias, rows=rows),
    )
