"""The transformer prior's configuration, layers and teacher-forced logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rasterwise.configuration import Decay, Depth, Width, WidthOrZero, configuration
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveConfig, AutoregressiveModel
from rasterwise.symbols.condition import Condition
from stage2_prior.transformer.blocks import BlockOptions, Transformer
from stage2_prior.transformer.rotary import GridRotaryEmbedding


@configuration(kw_only=True)
class TransformerPriorConfig(AutoregressiveConfig):
    """A transformer prior. The defaults suit small code grids on a CPU.

    Attributes:
        depth: Layers.
        width: Width of the residual stream (D), a multiple of heads · 2.
        heads: Attention heads.
        mlp_width: Width inside the gated MLP; 0 for 8/3 of ``width``.
        dropout: Of the symbols' embeddings and the attention's weights, in training.
    """

    depth: Depth = 6
    width: Width = 192
    heads: Depth = 6
    mlp_width: WidthOrZero = 0
    dropout: Decay = 0.1

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

    def __init__(self, config: TransformerPriorConfig) -> None:
        super().__init__(config)
        grid = config.grid
        options = BlockOptions(config.width, config.heads, config.mlp_width, config.dropout)
        self.llama = Transformer(options, config.depth, grid.levels)
        self.rotary = GridRotaryEmbedding(grid, config.width // config.heads)
        self.start = nn.Embedding(len(config.classes) + 1, config.width)
        nn.init.normal_(self.start.weight, std=0.02)
        self.dropout = nn.Dropout(config.dropout)

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
        return self.grid.unflatten(self.llama.lm_head(self.llama.features(self.dropout(sequence), rotary)))
