"""What models of text and images have in common: their data, and how they take a text."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
import tyro
from torch import Tensor

from rasterwise.configuration import Count, CountOrZero, Decay, Depth, Width, WidthOrZero, configuration
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveConfig, AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.documents.vocabulary import Vocabulary
from rasterwise.symbols.text import TextBatch
from rasterwise.training.objective import Losses


@configuration(kw_only=True)
class TextImageConfig(AutoregressiveConfig):
    """What every model of text and images says of its data, and the size of its transformer.

    The first three are no flags of a command: the data that a model is trained on decide them.

    Attributes:
        text_tokens: Tokens of the text tokenizer.
        text_length: The most tokens of a text.
        text_tokenizer: Fingerprint of the text tokenizer; empty for any tokenizer.
        depth: Layers.
        width: Width of the residual stream (D), a multiple of heads · 2.
        heads: Attention heads.
        mlp_width: Width inside the gated MLP; 0 for 8/3 of ``width``.
        dropout: Of the embeddings and the attention's weights, in training.
    """

    text_tokens: Annotated[CountOrZero, tyro.conf.Suppress] = 256
    text_length: Annotated[Count, tyro.conf.Suppress] = 64
    text_tokenizer: Annotated[str, tyro.conf.Suppress] = ""
    depth: Depth = 6
    width: Width = 192
    heads: Depth = 6
    mlp_width: WidthOrZero = 0
    dropout: Decay = 0.1

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise InputError(f"width {self.width} is no multiple of 2 × {self.heads} heads")

    @property
    def vocabulary(self) -> Vocabulary:
        """Ids of text and codes in one stream."""
        return Vocabulary(self.text_tokens, self.grid.levels)


class TextImageModel(AutoregressiveModel):
    """A model of image codes that a text may go with: p(image | text), an empty text being none."""

    config: TextImageConfig
    takes_text: ClassVar[bool] = True

    @property
    def vocabulary(self) -> Vocabulary:
        """Ids of text and codes in one stream."""
        return self.config.vocabulary

    def texts(self, condition: Condition | None, batch_size: int) -> TextBatch:
        """The texts of a condition on the model's device, empty ones where there are none.

        Raises:
            InputError: A text is longer than the model's, has a token that the model does not know, or there are
                not as many as images.
        """
        if condition is None or condition.text is None:
            nothing = torch.zeros(batch_size, 0, dtype=torch.int64, device=self.device)
            return TextBatch(nothing, torch.zeros(batch_size, dtype=torch.int64, device=self.device))
        self.check_texts(condition.text)
        if len(condition.text) != batch_size:
            raise InputError(f"{len(condition.text)} texts for a batch of {batch_size}")
        return condition.text.to(self.device)

    def captioned_losses(self, symbols: Tensor, condition: Condition, dropout: float) -> Losses:
        """What is minimised to train the model on captioned images: here -log p(image | text).

        Args:
            symbols: int64 ``(B, C, H, W)``.
            condition: With B texts.
            dropout: Share of texts that are left out, so that the model also learns p(image), which guidance needs.
        """
        nll_nats = -self.log_prob(symbols, without_texts(condition, dropout)).mean()
        nats_per_code = nll_nats / self.grid.size
        return Losses(nats_per_code, {"nll_nats": nll_nats.detach(), "nats_per_code": nats_per_code.detach()})

    def check_texts(self, texts: TextBatch) -> None:
        """Raise InputError unless the model can take the texts."""
        config = self.config
        if texts.tokens.dtype != torch.int64:
            raise InputError(f"text tokens are {texts.tokens.dtype}, expected int64")
        if torch.compiler.is_compiling() or not len(texts):
            return  # reading values would cut the compiled graph in two
        longest = int(texts.lengths.max())
        if longest > config.text_length:
            raise InputError(
                f"a text has {longest} tokens, the model takes {config.text_length} at most; shorten it"
            )
        tokens = texts.tokens[texts.mask]
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= config.text_tokens):
            low, high = int(tokens.min()), int(tokens.max())
            raise InputError(
                f"text tokens lie in [{low}, {high}], expected [0, {config.text_tokens - 1}]; is it the model's "
                "text tokenizer?"
            )


def without_texts(condition: Condition, share: float) -> Condition:
    """A condition with a share of its texts left out, drawn for each."""
    texts = condition.text
    if texts is None:
        return condition
    dropped = torch.rand(texts.lengths.shape, device=texts.lengths.device) < share
    return replace(condition, text=TextBatch(texts.tokens, texts.lengths.masked_fill(dropped, 0)))


def placed(sequence: Tensor, start: Tensor, part: Tensor) -> Tensor:
    """A copy of sequences in which every row has a part of its own from a place of its own on.

    Args:
        sequence: ``(B, T, ...)``.
        start: int64 ``(B,)``, the place of the part's first entry.
        part: ``(B, n, ...)``, whose last entry has a place in every row.
    """
    index = start[:, None] + torch.arange(part.shape[1], device=start.device)
    index = index.reshape(*index.shape, *[1] * (part.ndim - 2)).expand_as(part)
    return sequence.scatter(1, index, part)


def taken(sequence: Tensor, start: Tensor, count: int) -> Tensor:
    """Entries of sequences, from a place of its own on in every row.

    Args:
        sequence: ``(B, T, ...)``.
        start: int64 ``(B,)``, the place of the first one.
        count: How many (n).

    Returns:
        ``(B, n, ...)``.
    """
    index = start[:, None] + torch.arange(count, device=start.device)
    index = index.reshape(*index.shape, *[1] * (sequence.ndim - 2)).expand(-1, -1, *sequence.shape[2:])
    return sequence.gather(1, index)
