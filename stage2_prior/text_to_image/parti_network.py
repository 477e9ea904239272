"""Parti's configuration, layers and teacher-forced logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasterwise.configuration import Depth, configuration
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.documents.grammar import Positions
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.text import TextBatch
from stage2_prior.conditioning.text import TextImageConfig, TextImageModel
from stage2_prior.transformer.blocks import BlockOptions, Layers, Transformer
from stage2_prior.transformer.rotary import GridRotaryEmbedding, SequenceRotary


@configuration(kw_only=True)
class PartiConfig(TextImageConfig):
    """A Parti. The defaults suit small code grids and short texts on a CPU.

    Attributes:
        encoder_depth: Layers of the text encoder; ``depth`` are those of the image decoder.
    """

    encoder_depth: Depth = 3


class PartiNetwork(TextImageModel):
    """The part of ``Parti`` that its decoder reads: layers and teacher-forced logits.

    Args:
        config: Its architecture and its data.
    """

    config_class = PartiConfig
    can_be_sharded = True
    config: PartiConfig

    def __init__(self, config: PartiConfig) -> None:
        super().__init__(config)
        options = BlockOptions(config.width, config.heads, config.mlp_width, config.dropout)
        # One token more stands before every text, so that there is something to attend to in an empty one.
        self.encoder = Layers(options, config.encoder_depth, config.text_tokens + 1)
        crossed = BlockOptions(config.width, config.heads, config.mlp_width, config.dropout, cross=True)
        self.transformer = Transformer(crossed, config.depth, config.grid.levels)
        self.start = nn.Embedding(len(config.classes) + 1, config.width)
        nn.init.normal_(self.start.weight, std=0.02)
        head_width = config.width // config.heads
        self.text_rotary = SequenceRotary(Grid(1, 1, 1, 2), head_width)
        self.rotary = GridRotaryEmbedding(config.grid, head_width)
        self.dropout = nn.Dropout(config.dropout)

    def encode(self, texts: TextBatch) -> tuple[Tensor, Tensor]:
        """Texts as the image decoder reads them.

        Args:
            texts: B texts on the model's device.

        Returns:
            ``(B, T + 1, D)``, and which of them are of a text, bool ``(B, T + 1)``.
        """
        tokens = F.pad(texts.tokens, (1, 0), value=self.config.text_tokens)
        mask = F.pad(texts.mask, (1, 0), value=True)
        place = torch.arange(tokens.shape[1], device=tokens.device)[None]
        x = self.dropout(self.encoder.embed_tokens(tokens))
        nowhere = torch.full_like(place, -1)
        rotary = self.text_rotary(x, Positions(place, nowhere, nowhere, nowhere))
        for block in self.encoder.layers:
            x = block(x, rotary, mask[:, None, None])
        return self.encoder.norm(x), mask

    def embed(self, symbols: Tensor) -> Tensor:
        """int64 ``(B, C, H, W)`` to vectors ``(B, C, H, W, D)``."""
        return self.transformer.model.embed_tokens(symbols)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        context, mask = self.encode(self.texts(condition, len(inputs)))
        start = self.start(self.class_index(condition, len(inputs)))
        sequence = torch.cat([start[:, None], self.grid.flatten(inputs)[:, :-1]], 1)
        rotary = self.rotary(sequence, torch.arange(self.grid.size, device=sequence.device)[None])
        features = self.transformer.features(
            self.dropout(sequence), rotary, context=context, context_mask=mask[:, None, None]
        )
        return self.grid.unflatten(self.transformer.lm_head(features))
