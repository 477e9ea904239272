"""DALL-E 1's configuration, layers and teacher-forced logits."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasterwise.configuration import Kernel, configuration
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.text import TextBatch
from stage2_prior.conditioning.text import TextImageConfig, TextImageModel
from stage2_prior.text_to_image.sparse_attention import attended, kinds
from stage2_prior.transformer.blocks import BlockOptions, Transformer


@configuration(kw_only=True)
class DALLEConfig(TextImageConfig):
    """A DALL-E 1. The defaults suit small code grids and short texts on a CPU.

    Attributes:
        attention: "dense" has every position attend to all before it; "sparse" as in the paper, to the whole text
            and to a row, a column or a square of the image, depending on the layer.
        kernel: Side of the square.
    """

    attention: Literal["dense", "sparse"] = "dense"
    kernel: Kernel = 11


class DALLENetwork(TextImageModel):
    """The part of ``DALLE`` that its decoder reads: layers and teacher-forced logits.

    The vocabulary is text tokens, then a padding token for each position of a text, then image codes. The sequence
    that the layers read is a start vector, L ids of text and padding, and the codes but for the last.

    Args:
        config: Its architecture and its data.
    """

    config_class = DALLEConfig
    can_be_sharded = True
    config: DALLEConfig

    def __init__(self, config: DALLEConfig) -> None:
        super().__init__(config)
        grid, width = config.grid, config.width
        options = BlockOptions(width, config.heads, config.mlp_width, config.dropout)
        self.first_code = config.text_tokens + config.text_length
        self.transformer = Transformer(options, config.depth, self.first_code + grid.levels)
        self.start = nn.Embedding(len(config.classes) + 1, width)
        self.text_position = nn.Embedding(config.text_length, width)
        self.row, self.column = nn.Embedding(grid.height, width), nn.Embedding(grid.width, width)
        self.channel = nn.Embedding(grid.channels, width) if grid.channels > 1 else None
        for table in (self.start, self.text_position, self.row, self.column, self.channel):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.kinds = kinds(config.depth) if config.attention == "sparse" else []
        for kind in set(self.kinds):
            mask = attended(kind, grid, config.text_length + 1, config.kernel)
            self.register_buffer(f"{kind}_mask", mask, persistent=False)

    def text_ids(self, texts: TextBatch) -> Tensor:
        """Texts as ids of text tokens and of their positions' padding, int64 ``(B, L)``."""
        length = self.config.text_length
        missing = length - texts.tokens.shape[1]
        tokens, mask = (F.pad(part, (0, max(missing, 0)))[:, :length] for part in (texts.tokens, texts.mask))
        padding = self.config.text_tokens + torch.arange(length, device=tokens.device)
        return torch.where(mask, tokens, padding)

    def prefix(self, text_ids: Tensor, condition: Condition | None) -> Tensor:
        """What enters the layers before the image, without positions: ``(B, L + 1, D)``."""
        start = self.start(self.class_index(condition, len(text_ids)))
        return torch.cat([start[:, None], self.transformer.model.embed_tokens(text_ids)], 1)

    def position_vectors(self) -> Tensor:
        """What is added at each position, ``(L + N, D)``: nothing at the start, and for a code its row and column."""
        grid, index = self.grid, torch.arange(self.grid.size - 1, device=self.device)
        site, channel = index // grid.channels, index % grid.channels
        codes = self.row(site // grid.width) + self.column(site % grid.width)
        if self.channel is not None:
            codes = codes + self.channel(channel)
        text = self.text_position.weight
        return torch.cat([torch.zeros_like(text[:1]), text, codes])

    def masks(self) -> list[Tensor | None] | None:
        """Where each layer attends, for sparse attention."""
        return [self.get_buffer(f"{kind}_mask") for kind in self.kinds] or None

    def features(self, sequence: Tensor) -> Tensor:
        """What the head reads: ``(B, T, D)`` without positions, T being L + N, to the same shape."""
        x = self.dropout(sequence + self.position_vectors())
        return self.transformer.features(x, None, self.masks())

    def embed(self, symbols: Tensor) -> Tensor:
        """int64 ``(B, C, H, W)`` to vectors ``(B, C, H, W, D)``."""
        return self.transformer.model.embed_tokens(symbols + self.first_code)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        texts = self.text_ids(self.texts(condition, len(inputs)))
        return self.grid.unflatten(self.code_logits(self._features_of(texts, inputs, condition)))

    def code_logits(self, features: Tensor) -> Tensor:
        """Logits ``(B, N, K)`` of the codes."""
        weight = self.transformer.lm_head.weight[self.first_code :]
        return F.linear(features[:, self.config.text_length :], weight)

    def text_log_probs(self, features: Tensor, text_ids: Tensor) -> Tensor:
        """Log-probability of each id of texts, ``(B, L)`` nats.

        A position may have a text token, or its own padding; only padding follows padding, and costs 0 nats.
        """
        length, tokens = text_ids.shape[1], self.config.text_tokens
        logits = F.linear(features[:, :length], self.transformer.lm_head.weight[: self.first_code])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        own = torch.arange(length, device=logits.device)[:, None]
        own = torch.cat(
            [logits[..., :tokens], logits.gather(2, (tokens + own).expand(len(logits), -1, -1))], 2
        )
        is_padding = text_ids >= tokens
        nats = own.log_softmax(2).gather(2, text_ids.clamp(max=tokens)[..., None])[..., 0]
        return nats.masked_fill(F.pad(is_padding, (1, -1), value=False), 0)

    def _features_of(self, text_ids: Tensor, inputs: Tensor, condition: Condition | None) -> Tensor:
        codes = self.grid.flatten(inputs)[:, :-1]
        return self.features(torch.cat([self.prefix(text_ids, condition), codes], 1))
