"""Cached decoding of the transformer that all priors are built of."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.decoding.kv_cache import KVCache
from rasterwise.decoding.transformer import TransformerDecoder
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from stage2_prior.transformer.blocks import NORM_EPS, Transformer
from stage2_prior.transformer.cached_weights import (
    CrossWeights,
    after_norm,
    layer_weights,
    rms_normalised,
    rotations,
)
from stage2_prior.transformer.network import TransformerPriorNetwork, masked


class StepBuffers(NamedTuple):
    """What a step of decoding fills again and again, and the views of it: at batch 1 to make them costs as much
    time as a third of the products."""

    norm: Tensor
    normed: Tensor
    qkv_row: Tensor
    qkv: Tensor
    pairs: Tensor
    gate: Tensor
    up: Tensor


class BlockDecoder(TransformerDecoder):
    """Decodes a ``Transformer``, whatever the options of its blocks. A subclass says how positions are rotated.

    The weights are copied, in the layout that decoding reads, when the decoder is made: training the model
    afterwards does not change it. All memory that decoding fills is allocated then, too.

    The cost law. A position takes the matrix products of one token for each image, which are those of a
    teacher-forced pass cut into N pieces. It reads the cache once, 2 · depth · D numbers for each image and earlier
    position, and all weights once, however small the batch. At batch 1 reading the weights is most of the time,
    and the dispatch of 17 operations a layer the rest.

    Of the ways to attend with one query on a CPU, batched matrix products take up to a third less time than
    ``scaled_dot_product_attention`` where time counts, at many images and positions; it is faster at batch 1.

    Args:
        transformer: Of a model in evaluation mode.
        grid: The grid that is decoded.
        stream: ``(B, D)``, what enters the layers at the first position that is decoded; its own copy.
        symbols: Which symbols of the transformer's vocabulary the grid's are.
        prefix: Positions before the first one that is decoded; the subclass fills the cache with them.
        positions: How many positions of a grid are passed through the layers at once.
        further_layers: Layers of the cache beyond the transformer's, for attention of the subclass's own.
        context: ``(B, S, D)``, for blocks that attend to one.
        context_mask: bool ``(B, S)``, True where there is something to attend to.
    """

    def __init__(
        self,
        transformer: Transformer,
        grid: Grid,
        stream: Tensor,
        *,
        symbols: slice = slice(None),
        prefix: int = 0,
        positions: int = 1,
        further_layers: int = 0,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> None:
        layers, options, batch_size = transformer.model, transformer.options, len(stream)
        rows = batch_size * positions
        self.heads, self.head_width = options.heads, options.width // options.heads
        memory = torch.empty(
            len(layers.layers) + further_layers, 2, batch_size * self.heads, prefix + grid.size, self.head_width,
            dtype=stream.dtype, device=stream.device,
        )  # fmt: skip
        cache = KVCache(memory, prefix)
        super().__init__(
            grid,
            batch_size,
            cache=cache,
            stream=stream,
            symbol_vectors=layers.embed_tokens.weight[symbols].clone(),
            head=after_norm(transformer.lm_head.weight[symbols], layers.norm.weight, rows),
        )
        self.layers = [layer_weights(block, rows, context) for block in layers.blocks]
        self.context_bias = _bias_of(context_mask, self.heads, stream.dtype)
        # Half precisions have no complex numbers of their own: theirs are rotated in float32.
        self.rotated_dtype = torch.promote_types(stream.dtype, torch.float32)
        self.floor = stream.new_full((), math.sqrt(options.width * NORM_EPS))
        plain = all(option is None for layer in self.layers for option in layer[5:])
        plain = plain and not self.head.packs and self.rotated_dtype == stream.dtype
        self.buffers = self._step_buffers() if plain else None
        if self.buffers is not None:
            cache.expect(self.buffers.qkv)

    @abstractmethod
    def _rotation(self) -> Tensor | None:
        """By what the current positions are rotated, of ``rotations``: ``(1 or M, 3 · h / 2)``, or a row of it."""

    def _biases(self) -> list[Tensor] | None:
        """What is added to the scores of the current position, for each layer; None for nothing."""
        return None

    def _pass_layers(self, stream: Tensor) -> Tensor:
        rotation, biases, width = self._rotation(), self._biases(), stream.shape[1]
        if rotation is not None:
            rotation = rotation.view(-1, 1, rotation.shape[-1])
            if self.buffers is not None and stream is self.stream and biases is None:
                return self._pass_plain_layers(self.buffers, rotation)
        for index, layer in enumerate(self.layers):
            pre = layer.attention_gain is None
            qkv = layer.qkv(self._normalised(stream) if pre else stream).view(-1, 3, self.head_width)
            if layer.qk_norm is not None:
                qkv = torch.cat([layer.qk_norm(qkv[:, :2]), qkv[:, 2:]], 1)
            if rotation is not None:
                qkv = self._rotated(qkv, rotation)
            bias = None if biases is None else biases[index]
            mixed = self.cache.attend(index, qkv, bias).view(-1, width)
            if layer.attention_gain is None:
                stream = layer.attention_out.added(mixed, stream)
            else:
                stream = stream + rms_normalised(layer.attention_out(mixed), layer.attention_gain)
            if layer.cross is not None:
                stream = self._with_context(stream, layer.cross)
            entering = self._normalised(stream) if pre else stream
            hidden = layer.up.multiplied(entering, layer.gate.silu(entering))
            if layer.mlp_gain is None:
                stream = layer.mlp_out.added(hidden, stream)
            else:
                stream = stream + rms_normalised(layer.mlp_out(hidden), layer.mlp_gain)
        return self._normalised(stream)

    def _step_buffers(self) -> StepBuffers:
        batch_size, width = self.stream.shape
        inner = self.layers[0].mlp_out.weight.shape[0]
        qkv = self.stream.new_empty(batch_size, 3 * width)
        return StepBuffers(
            self.stream.new_empty(batch_size, 1),
            torch.empty_like(self.stream),
            qkv,
            qkv.view(-1, 3, self.head_width),
            torch.view_as_complex(qkv.view(batch_size, self.heads, -1, 2)),
            *self.stream.new_empty(2, batch_size, inner),
        )

    def _pass_plain_layers(self, buffers: StepBuffers, rotation: Tensor) -> Tensor:
        """As ``_pass_layers`` for blocks without options and weights that are not packed."""
        stream, floor, attend = self.stream, self.floor, self.cache.attend
        norm, normed, qkv_row, qkv, pairs, gate, up = buffers

        def normalised() -> Tensor:
            torch.linalg.vector_norm(stream, 2, 1, True, out=norm)
            return torch.div(stream, norm.hypot_(floor), out=normed)

        for index, layer in enumerate(self.layers):
            layer.qkv.into(normalised(), qkv_row)
            pairs.mul_(rotation)
            layer.attention_out.added(attend(index, qkv).view_as(stream), stream)
            layer.gate.into(normalised(), gate)
            F.silu(gate, inplace=True)
            layer.up.into(normed, up)
            layer.mlp_out.added(gate.mul_(up), stream)
        return normalised()

    def _with_context(self, stream: Tensor, cross: CrossWeights) -> Tensor:
        """The stream ``(B, D)``, and what attention to the context adds to it."""
        query = cross.query(self._normalised(stream) if cross.gain is None else stream)
        query = query.view(-1, 1, self.head_width)
        scores = torch.bmm(query if cross.norm is None else cross.norm(query), cross.keys)
        if self.context_bias is not None:
            scores += self.context_bias
        mixed = torch.bmm(scores.softmax(-1), cross.values).view_as(stream)
        if cross.gain is None:
            return cross.out.added(mixed, stream)
        return stream + rms_normalised(cross.out(mixed), cross.gain)

    def _rotated(self, qkv: Tensor, rotation: Tensor) -> Tensor:
        """Rotary positions: each pair of a query or a key is a complex number, times e^(i · angle)."""
        exact = qkv.to(self.rotated_dtype)
        torch.view_as_complex(exact.view(-1, self.heads, rotation.shape[-1], 2)).mul_(rotation)
        return exact.to(qkv.dtype)

    def _normalised(self, stream: Tensor) -> Tensor:
        """x / √(Σx² + D·eps), √D and the gain being in the weights: ``F.rms_norm`` dispatches three times as much."""
        return stream / torch.linalg.vector_norm(stream, 2, 1, True).hypot_(self.floor)


class PriorDecoder(BlockDecoder):
    """Decodes a transformer prior.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
        positions: How many positions of a grid are passed through the layers at once.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: TransformerPriorNetwork,
        batch_size: int,
        condition: Condition | None,
        *,
        positions: int = 1,
    ) -> None:
        stream = model.start(model.class_index(condition, batch_size))
        super().__init__(model.llama, model.grid, stream, positions=positions)
        self.rotations = rotations(model.rotary.pair_angles, stream.dtype).to(model.device)
        self.allowed = model.allowed

    def pass_positions(self, stream: Tensor) -> Tensor:
        logits = super().pass_positions(stream)
        return logits if self.allowed is None else masked(logits, self.cache.row_of(self.allowed))

    def _rotation(self) -> Tensor:
        return self.cache.row_of(self.rotations)


def _bias_of(mask: Tensor | None, heads: int, dtype: torch.dtype) -> Tensor | None:
    """A mask bool ``(B, S)`` as what is added to scores, ``(R, 1, S)``."""
    if mask is None:
        return None
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
    return bias.repeat_interleave(heads, 0)[:, None]
