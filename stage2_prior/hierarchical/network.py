"""The hierarchical prior's configuration, layers and teacher-forced logits."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from rasterwise.configuration import Depth, configuration
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.likelihoods import categorical_log_prob
from rasterwise.symbols.two_grids import SCALE, TopAndBottom, TwoGrids, joined, separated
from stage2_prior.transformer.blocks import NORM_EPS, BlockOptions, TransformerBlock, initialise
from stage2_prior.transformer.model import TransformerPrior
from stage2_prior.transformer.network import TransformerPriorConfig, TransformerPriorNetwork
from stage2_prior.transformer.rotary import GridRotaryEmbedding


@configuration(kw_only=True)
class HierarchicalPriorConfig(TransformerPriorConfig):
    """A hierarchical prior. The defaults suit small code grids on a CPU.

    Attributes:
        top_depth: Layers of the transformer of the top grid; ``depth`` are those of the bottom grid's.
        encoder_depth: Layers of the encoder that reads the top grid for the bottom grid's transformer.
    """

    grid: Annotated[Grid, tyro.conf.Suppress] = Grid(1, 40, 8, 512)
    top_depth: Depth = 6
    encoder_depth: Depth = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        TwoGrids.within(self.grid)

    def transformer(self, grid: Grid, depth: int) -> TransformerPriorConfig:
        """The configuration of the transformer of one of the grids."""
        return TransformerPriorConfig(
            grid=grid,
            classes=self.classes,
            depth=depth,
            width=self.width,
            heads=self.heads,
            mlp_width=self.mlp_width,
            dropout=self.dropout,
            smallest_codebook=self.smallest_codebook,
        )


class TopEncoder(nn.Module):
    """Codes of the top grid to features of every site of the bottom grid, each of which sees all of them.

    Args:
        grid: The top grid.
        options: Of the blocks.
        depth: Blocks.
    """

    def __init__(self, grid: Grid, options: BlockOptions, depth: int) -> None:
        super().__init__()
        self.grid = grid
        self.layers = nn.ModuleList(TransformerBlock(options) for _ in range(depth))
        self.norm = nn.RMSNorm(options.width, eps=NORM_EPS)
        self.upsample = nn.Linear(grid.channels * options.width, SCALE**2 * options.width, bias=False)
        self.rotary = GridRotaryEmbedding(grid, options.width // options.heads)
        initialise(self)
        # The features are added to embeddings of codes, and begin as small as those.
        nn.init.normal_(self.upsample.weight, std=0.02 / self.upsample.in_features**0.5)

    def forward(self, codes: Tensor) -> Tensor:
        """Embedded codes ``(B, C, h, w, D)`` to a map ``(B, D, 2h, 2w)``: a site's features lie in its place."""
        x = self.grid.flatten(codes)
        rotary = self.rotary(x, torch.arange(self.grid.size, device=x.device)[None])
        for layer in self.layers:
            x = layer(x, rotary, causal=False)
        sites = self.norm(x).unflatten(1, (self.grid.height, self.grid.width, -1)).flatten(3)
        return F.pixel_shuffle(self.upsample(sites).movedim(3, 1), SCALE)


class BottomPrior(TransformerPriorNetwork):
    """A transformer prior given a map: at each position the features of the symbol's own site are added.

    Args:
        config: Its architecture and its data.
    """

    kind = "bottom-prior"
    takes_spatial = True

    def entering(self, inputs: Tensor, condition: Condition | None) -> Tensor:
        assert condition is not None, "the bottom grid is modelled given the top grid"
        assert condition.spatial is not None, "the bottom grid is modelled given the top grid"
        return super().entering(inputs, condition) + self.sequence_of(condition.spatial)

    def sequence_of(self, features: Tensor) -> Tensor:
        """A map ``(B, D, H, W)`` in raster order, ``(B, N, D)``: the channels of a site have its features alike."""
        return self.grid.flatten(features.movedim(1, 3)[:, None].expand(-1, self.grid.channels, -1, -1, -1))


class HierarchicalPriorNetwork(AutoregressiveModel):
    """The part of ``HierarchicalPrior`` that its decoder reads: layers and teacher-forced logits.

    Args:
        config: Its architecture and its data.
    """

    config_class = HierarchicalPriorConfig
    can_be_sharded = True
    config: HierarchicalPriorConfig

    def __init__(self, config: HierarchicalPriorConfig) -> None:
        super().__init__(config)
        grids = TwoGrids.within(config.grid)
        options = BlockOptions(config.width, config.heads, config.mlp_width, config.dropout)
        self.top = TransformerPrior(config.transformer(grids.top, config.top_depth))
        self.top_encoder = TopEncoder(grids.top, options, config.encoder_depth)
        self.bottom = BottomPrior(config.transformer(grids.bottom, config.depth))

    def grids_of(self, values: Tensor) -> dict[str, Tensor]:
        """Values of the joint grid, ``(B, C, H, W, ...)``, as those of the top and of the bottom grid."""
        return separated(values)._asdict()

    def embed(self, symbols: Tensor) -> Tensor:
        """int64 ``(B, C, H, W)`` to vectors ``(B, C, H, W, D)``."""
        top, bottom = separated(symbols)
        return joined(self.top.embed(top), self.bottom.embed(bottom))

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        top, bottom = separated(inputs)
        given = Condition(None if condition is None else condition.label, spatial=self.top_encoder(top))
        return joined(self.top.logits_from(top, condition), self.bottom.logits_from(bottom, given))

    def grid_log_probs(self, symbols: Tensor, condition: Condition | None = None) -> TopAndBottom:
        """log p(top) and log p(bottom | top), ``(B,)`` nats each; their sum is ``log_prob``. Arguments as there."""
        nats = categorical_log_prob(self(symbols, condition), symbols)
        return TopAndBottom(*(part.flatten(1).sum(1) for part in separated(nats)))
