"""The transformer prior's configuration, layers and teacher-forced logits."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import torch
import tyro
from torch import Tensor, nn

from rasterwise.configuration import LATER, CountOrZero, Decay, Depth, Width, WidthOrZero, configuration
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveConfig, AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.growing_codebook import allowed_codes
from stage2_prior.transformer.blocks import BlockOptions, Transformer
from stage2_prior.transformer.rotary import GridRotaryEmbedding

IMPOSSIBLE = -1e4
"""A logit whose probability is 0 in every precision, and that can be guided and compared, as −inf cannot."""


@configuration(kw_only=True)
class TransformerPriorConfig(AutoregressiveConfig):
    """A transformer prior. The defaults suit small code grids on a CPU.

    Attributes:
        depth: Layers.
        width: Width of the residual stream (D), a multiple of heads · 2.
        heads: Attention heads.
        mlp_width: Width inside the gated MLP; 0 for 8/3 of ``width``.
        dropout: Of the symbols' embeddings and the attention's weights, in training.
        smallest_codebook: Of the tokenizer, whose codebook grows along the raster order; 0 for one that does not.
    """

    depth: Depth = 6
    width: Width = 192
    heads: Depth = 6
    mlp_width: WidthOrZero = 0
    dropout: Decay = 0.1
    smallest_codebook: Annotated[CountOrZero, tyro.conf.Suppress] = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise InputError(f"width {self.width} is no multiple of 2 × {self.heads} heads")


class TransformerPriorNetwork(AutoregressiveModel):
    """The part of ``TransformerPrior`` that its decoder reads: layers and teacher-forced logits.

    Args:
        config: Its architecture and its data.
    """

    config_class = TransformerPriorConfig
    can_be_sharded = True
    config: TransformerPriorConfig
    allowed: Tensor | None

    def __init__(self, config: TransformerPriorConfig) -> None:
        super().__init__(config)
        grid = config.grid
        options = BlockOptions(config.width, config.heads, config.mlp_width, config.dropout)
        self.llama = Transformer(options, config.depth, grid.levels)
        self.rotary = GridRotaryEmbedding(grid, config.width // config.heads)
        self.start = nn.Embedding(len(config.classes) + 1, config.width)
        nn.init.normal_(self.start.weight, std=0.02)
        self.dropout = nn.Dropout(config.dropout)
        allowed = None
        if config.smallest_codebook:
            allowed = allowed_codes(grid.height * grid.width, grid.levels, config.smallest_codebook)
            allowed = allowed.repeat_interleave(grid.channels)[:, None]
        self.register_buffer("allowed", allowed, persistent=False)

    def embed(self, symbols: Tensor) -> Tensor:
        """int64 ``(B, C, H, W)`` to vectors ``(B, C, H, W, D)``."""
        return self.llama.model.embed_tokens(symbols)

    def entering(self, inputs: Tensor, condition: Condition | None) -> Tensor:
        """What enters the layers at each position, ``(B, N, D)``, of what ``embed`` gave."""
        start = self.start(self.class_index(condition, len(inputs)))
        return torch.cat([start[:, None], self.grid.flatten(inputs)[:, :-1]], 1)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        sequence = self.entering(inputs, condition)
        positions = torch.arange(self.grid.size, device=sequence.device)[None]
        rotary = self.rotary(sequence, positions)
        logits = self.llama.lm_head(self.llama.features(self.dropout(sequence), rotary))
        return self.grid.unflatten(masked(logits, self.allowed))


def masked(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """Logits ``(..., K)``, of which only the first few are allowed: int64, broadcast to ``(..., 1)``; None for all."""
    if allowed is None:
        return logits
    return logits.masked_fill(torch.arange(logits.shape[-1], device=logits.device) >= allowed, IMPOSSIBLE)
