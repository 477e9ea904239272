"""The any-order prior's configuration, layers and teacher-forced logits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from rasterwise.configuration import Share, configuration
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.likelihoods import categorical_log_prob
from rasterwise.symbols.order import RasterOrder, checked_order, raster_order
from stage2_prior.transformer.blocks import (
    NORM_EPS,
    Attention,
    BlockOptions,
    GatedMLP,
    Rotary,
    Transformer,
    initialise,
)
from stage2_prior.transformer.network import TransformerPriorConfig
from stage2_prior.transformer.rotary import GridRotaryEmbedding


@configuration(kw_only=True)
class AnyOrderPriorConfig(TransformerPriorConfig):
    """An any-order prior. The defaults suit small code grids on a CPU.

    Attributes:
        depth: Layers; the first half of them reads the symbols, the other half predicts.
        final_random_share: The probability that a grid has a random order at the end of training, to which it falls
            from 1. 0 ends in raster order alone; above 0 several codes a step can be drawn, best at 1.
    """

    final_random_share: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 2:
            raise InputError(f"depth is {self.depth}, expected 2 or more: one half reads, the other predicts")


class QueryBlock(nn.Module):
    """Attention of target positions to what has been read, and MLP. Targets do not see one another.

    Args:
        options: What it is made of.
    """

    def __init__(self, options: BlockOptions) -> None:
        super().__init__()
        self.cross_attn = Attention(options)
        self.mlp = GatedMLP(options)
        self.input_layernorm = nn.RMSNorm(options.width, eps=NORM_EPS)
        self.post_attention_layernorm = nn.RMSNorm(options.width, eps=NORM_EPS)

    def forward(
        self, x: Tensor, rotary: Rotary, context: Tensor, context_rotary: Rotary, mask: Tensor | None
    ) -> Tensor:
        """Targets ``(B, T, D)`` to the same shape; without a mask, the i-th sees the context's first i + 1."""
        mixed = self.cross_attn(
            self.input_layernorm(x), rotary, mask, context, causal=True, context_rotary=context_rotary
        )
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x))


class AnyOrderNetwork(AutoregressiveModel):
    """The part of ``AnyOrderPrior`` that its decoder reads: layers, order, and teacher-forced logits.

    Args:
        config: Its architecture and its data.
    """

    config_class = AnyOrderPriorConfig
    can_be_sharded = True
    config: AnyOrderPriorConfig

    def __init__(self, config: AnyOrderPriorConfig) -> None:
        super().__init__(config)
        grid, targeting = config.grid, config.depth // 2
        options = BlockOptions(config.width, config.heads, config.mlp_width, config.dropout)
        self.reader = Transformer(options, config.depth - targeting, grid.levels)
        self.targets = nn.Embedding(grid.size, config.width)
        self.query_layers = nn.ModuleList(QueryBlock(options) for _ in range(targeting))
        self.query_norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.start = nn.Embedding(len(config.classes) + 1, config.width)
        for module in (self.targets, self.query_layers, self.start):
            initialise(module)
        self.rotary = GridRotaryEmbedding(grid, config.width // config.heads)
        self.dropout = nn.Dropout(config.dropout)
        self._steps: list[Tensor] | None = None

    @property
    def order(self) -> Sequence[Tensor]:
        if self._steps is None:
            return raster_order(self.grid, self.device)
        return [step.to(self.device) for step in self._steps]

    def in_order(self, order: Sequence[Tensor]) -> Self:
        raster = isinstance(order, RasterOrder) and len(order) == self.grid.size
        ordered = copy.copy(self)
        ordered._steps = None if raster else checked_order(self.grid, order)
        return ordered

    @property
    def sequence(self) -> Tensor:
        """The positions in the model's order, int64 ``(N,)`` on the CPU."""
        return torch.arange(self.grid.size) if self._steps is None else torch.cat(self._steps)

    @property
    def query_blocks(self) -> list[QueryBlock]:
        """The blocks that predict, typed."""
        return list(self.query_layers)  # type: ignore[arg-type]

    def embed(self, symbols: Tensor) -> Tensor:
        """int64 ``(B, C, H, W)`` to vectors ``(B, C, H, W, D)``."""
        return self.reader.model.embed_tokens(symbols)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        sequence, mask = self.sequence.to(inputs.device), None
        if self._steps is not None:
            sizes = torch.tensor([len(step) for step in self._steps])
            earlier = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)  # symbols of earlier steps
            # The start vector, and those symbols.
            mask = (torch.arange(self.grid.size) <= earlier[:, None]).to(inputs.device)
        logits = self._ordered_logits(self.grid.flatten(inputs), condition, sequence[None], mask)
        return self.grid.unflatten(logits[:, sequence.argsort()])

    def log_prob_in_orders(self, symbols: Tensor, condition: Condition | None, sequences: Tensor) -> Tensor:
        """Log-probability of grids, each in an order of its own of one symbol a step: ``(B,)`` nats.

        Args:
            symbols: int64 ``(B, C, H, W)``.
            condition: B conditions, or None.
            sequences: int64 ``(B, N)``, each a permutation of the positions.
        """
        logits = self._ordered_logits(self.grid.flatten(self.embed(symbols)), condition, sequences)
        ordered = self.grid.flatten(symbols).gather(1, sequences)
        return categorical_log_prob(logits, ordered).sum(1)

    def _ordered_logits(
        self, inputs: Tensor, condition: Condition | None, sequences: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Logits ``(B, N, K)`` in the order that is given.

        Args:
            inputs: Vectors of symbols in raster order, ``(B, N, D)``.
            condition: B conditions, or None.
            sequences: Positions in order, int64 ``(1 or B, N)``.
            mask: bool ``(N, N)``, the place i of the target, and which places it sees: the start vector at 0, and at j
                the symbol that comes before the j-th. None for one symbol a step.
        """
        rows = torch.arange(len(inputs), device=inputs.device)[:, None]
        start = self.start(self.class_index(condition, len(inputs)))[:, None]
        read = torch.cat([start, inputs[rows, sequences[:, :-1]]], 1)
        at = torch.cat([torch.zeros_like(sequences[:, :1]), sequences[:, :-1]], 1)
        read_rotary, rotary = self.rotary(read, at), self.rotary(read, sequences)
        context = self.reader.features(self.dropout(read), read_rotary)
        x = self.dropout(self.targets(sequences).expand_as(read))
        for block in self.query_blocks:
            x = block(x, rotary, context, read_rotary, mask)
        return self.reader.lm_head(self.query_norm(x))
