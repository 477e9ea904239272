"""Cached decoding of the any-order prior: what was drawn is read once, and targets attend to what has been read."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rasterwise.decoding.decoder import CaptureRegion, Decoder
from rasterwise.decoding.packed_linear import PackedLinear
from rasterwise.decoding.window import WindowKVCache
from rasterwise.symbols.condition import Condition
from stage2_prior.any_order.network import AnyOrderNetwork, QueryBlock
from stage2_prior.transformer.cached_weights import after_norm, paired_rows, rotations
from stage2_prior.transformer.decoder import BlockDecoder


class GroupKVCache(WindowKVCache):
    """A cache in which the symbols of a step are read at once, in their order, and others attend to all that was read.

    Args:
        memory: As for ``KVCache``.
        batch_size: How many images the rows are of.
    """

    def attend_from(self, layer: int, query: Tensor, entry: Tensor) -> Tensor:
        """Keep the current positions' keys and values, and mix all values so far by the queries of any positions.

        Args:
            layer: Which.
            query: Scaled, ``(B · T · heads, 1, h)``.
            entry: Keys and values, ``(B · positions · heads, 2, h)``.

        Returns:
            The mix ``(B · T · heads, 1, h)``.
        """
        _, _, batch_size, heads, _, width = self.memory.shape
        keys, values = filled = self.memory[layer, :, :, :, : self.stop]
        by_position = entry.view(batch_size, self.stop - self.start, heads, 2, width)
        filled[:, :, :, self.start :] = by_position.permute(3, 0, 2, 1, 4)
        by_target = query.view(batch_size, -1, heads, width).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(by_target, keys, values, scale=1.0)
        return mixed.transpose(1, 2).reshape(len(query), 1, width)


class QueryWeights(NamedTuple):
    """A query block's matrices, with the gains of the normalisations before them folded in.

    ``key_value`` is of what has been read, and the others of the targets.
    """

    query: PackedLinear
    key_value: PackedLinear
    attention_out: PackedLinear
    gate: PackedLinear
    up: PackedLinear
    mlp_out: PackedLinear


def query_weights(block: QueryBlock, context_gain: Tensor, rows: int) -> QueryWeights:
    """A block's weights, copied.

    Args:
        block: The block.
        context_gain: Of the normalisation of what has been read.
        rows: How many are decoded at once.
    """
    attention, mlp = block.cross_attn, block.mlp
    gains = block.input_layernorm.weight, block.post_attention_layernorm.weight
    query = paired_rows(attention.q_proj.weight / math.sqrt(attention.head_width), attention)
    key = paired_rows(attention.k_proj.weight, attention)
    value = attention.v_proj.weight.unflatten(0, (attention.heads, -1))
    return QueryWeights(
        after_norm(query.flatten(0, 1), gains[0], rows),
        after_norm(torch.stack([key, value], 1).flatten(0, 2), context_gain, rows),
        PackedLinear(attention.o_proj.weight, rows=rows),
        after_norm(mlp.gate_proj.weight, gains[1], rows),
        after_norm(mlp.up_proj.weight, gains[1], rows),
        PackedLinear(mlp.down_proj.weight, rows=rows),
    )


class AnyOrderDecoder(BlockDecoder):
    """Decodes an any-order prior in the model's order.

    A step reads the symbols of the step before it, and passes its own targets through the query blocks: all steps
    together compute what a teacher-forced pass does. A step reads all weights once, whatever it draws.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: AnyOrderNetwork, batch_size: int, condition: Condition | None) -> None:
        order = model.order
        several = len(order) < model.grid.size
        positions = -(-model.grid.size // len(order))
        stream = model.start(model.class_index(condition, batch_size))
        super().__init__(
            model.reader,
            model.grid,
            stream,
            positions=positions,
            further_layers=len(model.query_layers),
        )
        self.steps = order
        rows, layers = batch_size * positions, model.reader.model
        self.head = after_norm(model.reader.lm_head.weight, model.query_norm.weight, rows)
        self.query_layers = [query_weights(block, layers.norm.weight, rows) for block in model.query_blocks]
        self.groups = GroupKVCache(self.cache.memory, batch_size) if several else None
        if self.groups is not None:
            self.cache, self.buffers = self.groups, None  # which are of one position a step
        # Where each step's targets begin in the order; what they see was read at as many places and one.
        self.starts = [0, *accumulate(map(len, order))] if several else []
        sequence = model.sequence.to(model.rotary.angles.device)
        of_targets = rotations(model.rotary.pair_angles[sequence], stream.dtype).to(model.device)
        start_and_symbols = torch.cat([sequence.new_zeros(1), sequence[:-1]])
        self.rotations = rotations(model.rotary.pair_angles[start_and_symbols], stream.dtype).to(model.device)
        pairs = self.head_width // 2
        self.query_rotations = of_targets[:, :pairs].contiguous()
        self.key_rotations = self.rotations[:, pairs:].contiguous()
        self.targets = model.targets.weight[sequence.to(model.device)]

    def capture_regions(self) -> list[CaptureRegion]:
        return super().capture_regions() if self.groups is None else Decoder.capture_regions(self)

    def _logits(self) -> Tensor:
        if self.groups is None:
            self.cache.go_to(self.index)
        else:
            read = self.starts[self.index] + 1
            self.cache.go_to(read - len(self.stream) // self.batch_size, len(self.stream) // self.batch_size)
        logits = self.head(self._pass_queries(self._pass_layers(self.stream)))
        return logits.view(self.batch_size, -1, self.grid.levels)

    def _advance(self, symbols: Tensor) -> None:
        if self.groups is None:
            super()._advance(symbols)
        else:
            self.stream = self.symbol_vectors.index_select(0, symbols.flatten())

    def _rotation(self) -> Tensor:
        return self.cache.row_of(self.rotations)

    def _of_targets(self, table: Tensor) -> Tensor:
        """The current targets' rows of a table ``(N, ...)`` in the model's order, for every image: a copy."""
        if self.groups is None:
            rows = self.cache.row_of(table).view(1, -1)
        else:
            rows = table[self.starts[self.index] : self.starts[self.index + 1]]
        return rows.repeat(self.batch_size, 1)

    def _pass_queries(self, context: Tensor) -> Tensor:
        """What the head reads of the targets, ``(B · T, D)``, given what was just read, ``(B · positions, D)``."""
        stream, width = self._of_targets(self.targets), context.shape[1]
        of_targets = self._of_targets(self.query_rotations)[:, None]
        of_context = self.cache.row_of(self.key_rotations).view(-1, 1, 2 * of_targets.shape[-1])
        for index, layer in enumerate(self.query_layers, len(self.layers)):
            query = self._rotated(layer.query(self._normalised(stream)), of_targets)
            entry = self._rotated(layer.key_value(context), of_context)
            query, entry = query.view(-1, 1, self.head_width), entry.view(-1, 2, self.head_width)
            if self.groups is None:
                mixed = self.cache.attend(index, torch.cat([query, entry], 1))
            else:
                mixed = self.groups.attend_from(index, query, entry)
            stream = layer.attention_out.added(mixed.view(-1, width), stream)
            entering = self._normalised(stream)
            hidden = layer.up.multiplied(entering, layer.gate.silu(entering))
            stream = layer.mlp_out.added(hidden, stream)
        return self._normalised(stream)
