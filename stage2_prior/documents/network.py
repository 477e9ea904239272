"""Chameleon's configuration and teacher-forced logits, of images given texts and of whole documents."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from rasterwise.configuration import CountOrZero, Weight, configuration
from rasterwise.errors import InputError
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.documents.grammar import Form, Grammar
from rasterwise.symbols.documents.vocabulary import BOI, BOS, EOI, EOS, PAD
from rasterwise.symbols.text import TextBatch
from stage2_prior.conditioning.text import TextImageConfig, TextImageModel, placed, taken
from stage2_prior.transformer.blocks import BlockOptions, NormOrder, Transformer
from stage2_prior.transformer.rotary import SequenceRotary


@configuration(kw_only=True)
class ChameleonConfig(TextImageConfig):
    """A Chameleon. The defaults suit small code grids and short texts on a CPU.

    Attributes:
        length: The most ids of a document, from BOS to EOS; 0 for what one text and one image need. No flag: the
            data decide it.
        qk_norm: Normalise each head's queries and keys.
        norm: "swin" normalises what attention and MLP add to the stream (as the paper's 34B), "pre" what enters them
            (as its 7B).
        z_loss: Weight of log² Z in training, Z being the sum that the softmax divides by.
    """

    length: Annotated[CountOrZero, tyro.conf.Suppress] = 0
    qk_norm: bool = True
    norm: NormOrder = "swin"
    z_loss: Weight = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length and self.length < self.grid.size + 4:
            raise InputError(
                f"length is {self.length}, but a document of one image has {self.grid.size + 4} ids"
            )


class ChameleonNetwork(TextImageModel):
    """The part of ``Chameleon`` that its decoder reads: layers and teacher-forced logits.

    Args:
        config: Its architecture and its data.
    """

    config_class = ChameleonConfig
    can_be_sharded = True
    config: ChameleonConfig

    def __init__(self, config: ChameleonConfig) -> None:
        super().__init__(config)
        options = BlockOptions(
            config.width, config.heads, config.mlp_width, config.dropout, config.qk_norm, config.norm
        )
        self.transformer = Transformer(options, config.depth, self.vocabulary.size)
        self.label = nn.Embedding(len(config.classes) + 1, config.width) if config.classes else None
        self.rotary = SequenceRotary(config.grid, config.width // config.heads)
        self.dropout = nn.Dropout(config.dropout)

    def grammar(self, form: Form = "interleaved") -> Grammar:
        """Which documents of a form are legal: interleaved ones up to the model's length, others up to a text's."""
        pair = self.config.text_length + self.grid.size + 4
        length = (self.config.length or pair) if form == "interleaved" else pair
        return Grammar(self.config.text_tokens, self.grid, length, form)

    # ------------------------------------------------------------------------------------------ documents

    def document_logits(self, ids: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits of every id given those before it, before any grammar.

        Args:
            ids: int64 ``(B, T)`` in ``[0, V)``, from BOS on; legal up to any PAD.
            condition: B labels, or None.

        Returns:
            ``(B, T, V)``; zeros for BOS, which nothing comes before.
        """
        features = self.features(self.input_vectors(ids[:, :-1], condition), ids)
        return F.pad(self.transformer.lm_head(features), (0, 0, 1, 0))

    def input_vectors(self, ids: Tensor, condition: Condition | None = None) -> Tensor:
        """Ids ``(B, T)`` as what enters the layers, ``(B, T, D)``; a class is added to BOS, the first."""
        x = self.transformer.model.embed_tokens(ids)
        index = self.class_index(condition, len(ids))
        if self.label is None or not ids.shape[1]:
            return x
        return torch.cat([x[:, :1] + self.label(index)[:, None], x[:, 1:]], 1)

    def features(self, inputs: Tensor, ids: Tensor) -> Tensor:
        """What the head reads.

        Args:
            inputs: ``(B, T - 1, D)``, of all ids but the last.
            ids: int64 ``(B, T)``: a position is that of the id that is predicted there.

        Returns:
            ``(B, T - 1, D)``: at t, of the id at t + 1.
        """
        grammar = self.grammar()
        rotary = self.rotary(inputs, grammar.positions(grammar.states(ids)[:, 1:-1]))
        return self.transformer.features(self.dropout(inputs), rotary)

    # ------------------------------------------------------------------------------------------ images

    def embed(self, symbols: Tensor) -> Tensor:
        """int64 ``(B, C, H, W)`` to vectors ``(B, C, H, W, D)``."""
        return self.transformer.model.embed_tokens(symbols + self.vocabulary.first_image)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        grid, texts = self.grid, self.texts(condition, len(inputs))
        begin = image_prefixes(self, texts)
        size = begin.shape[1] + grid.size
        code = torch.full((len(inputs), grid.size), self.vocabulary.first_image, device=self.device)
        ids = placed(
            F.pad(begin, (0, grid.size)), texts.lengths + 2, code
        )  # any codes: they only have positions
        vectors = F.pad(self.input_vectors(begin, condition), (0, 0, 0, grid.size))[:, : size - 1]
        sequence = placed(vectors, texts.lengths + 2, grid.flatten(inputs)[:, :-1])
        features = taken(self.features(sequence, ids), texts.lengths + 1, grid.size)
        return grid.unflatten(F.linear(features, self.transformer.lm_head.weight[self.code_ids]))

    @property
    def code_ids(self) -> slice:
        """The ids of image codes."""
        return slice(self.vocabulary.first_image, None)


def image_prefixes(model: TextImageModel, texts: TextBatch) -> Tensor:
    """BOS, a text and BOI, int64 ``(B, T + 2)``, padded with PAD: what the first code of an image follows."""
    size = len(texts)
    ends = torch.full((size, 1), BOI, device=texts.tokens.device)
    return placed(_text_ids(model, texts, F.pad(ends[:, :0], (0, 1), value=BOS), 1), texts.lengths + 1, ends)


def captioned(model: TextImageModel, texts: TextBatch, symbols: Tensor, form: Form) -> Tensor:
    """Documents of a text and an image.

    Args:
        model: Whose vocabulary and grid.
        texts: B texts.
        symbols: int64 ``(B, C, H, W)``.
        form: "text-to-image" or "image-to-text": which comes first.

    Returns:
        int64 ``(B, T)``, padded with PAD.
    """
    codes = model.grid.flatten(symbols) + model.vocabulary.first_image
    begin, end, last = (torch.full_like(codes[:, :1], number) for number in (BOI, EOI, EOS))
    first = torch.full_like(begin, BOS)
    image = torch.cat([begin, codes, end], 1)
    if form == "text-to-image":
        ids = _text_ids(model, texts, first, image.shape[1] + 1)
        return placed(ids, texts.lengths + 1, torch.cat([image, last], 1))
    if form == "image-to-text":
        before = torch.cat([first, image], 1)
        return placed(_text_ids(model, texts, before, 1), texts.lengths + before.shape[1], last)
    raise InputError(f"a captioned image has the form text-to-image or image-to-text, not {form}")


def _text_ids(model: TextImageModel, texts: TextBatch, before: Tensor, after: int) -> Tensor:
    """Ids ``(B, n)``, then those of texts padded with PAD, and as many PADs as will be replaced."""
    tokens = (texts.tokens + model.vocabulary.first_text).masked_fill(~texts.mask, PAD)
    return F.pad(torch.cat([before, tokens], 1), (0, after), value=PAD)
