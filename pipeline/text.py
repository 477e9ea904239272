"""The text of a pipeline: a text tokenizer with a model of text and images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from rasterwise.decoding.sampling import Sampling
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import evaluating
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.documents.document import Document, ImageSegment, Segment, TextSegment
from rasterwise.symbols.documents.grammar import Form
from rasterwise.symbols.documents.vocabulary import BOS, PAD
from rasterwise.symbols.text import TextBatch
from rasterwise.tokenizers.text import TextTokenizer
from stage2_prior.conditioning.text import TextImageModel
from stage2_prior.documents.model import Chameleon

TEXT_FOLDER = "text-tokenizer"
"""Where in a pipeline's folder, and in a run's, the text tokenizer is."""

Prompts: TypeAlias = str | Sequence[str]


class TextModel:
    """A model of text and images with the tokenizer of its texts.

    Args:
        model: The model.
        tokenizer: Of its texts.

    Raises:
        InputError: The model was trained with another text tokenizer.
    """

    def __init__(self, model: TextImageModel, tokenizer: TextTokenizer) -> None:
        wanted = model.config.text_tokenizer
        if wanted and wanted != tokenizer.fingerprint:
            raise InputError(
                f"the model was trained on the tokens of text tokenizer {wanted[:12]}…, not of this one "
                f"({tokenizer.fingerprint[:12]}…); use the one in its run"
            )
        if model.config.text_tokens != tokenizer.size:
            raise InputError(
                f"the text tokenizer has {tokenizer.size} tokens, the model was built for {model.config.text_tokens}"
            )
        self.model, self.tokenizer = model, tokenizer

    def texts(self, prompts: Prompts, n: int) -> TextBatch:
        """Tokens of one prompt for all of n images, or of n prompts.

        Raises:
            InputError: There are not as many; one is no text, is empty, or is too long for the model.
        """
        given = [prompts] * n if isinstance(prompts, str) else list(prompts)
        if len(given) != n:
            raise InputError(f"{len(given)} prompts for {n} images; give one for all, or one each")
        for number, prompt in enumerate(given):
            if not isinstance(prompt, str):
                raise InputError(f"prompt {number} is a {type(prompt).__name__}, expected a string")
            if not prompt:
                raise InputError(f"prompt {number} is empty; leave prompts out to draw images without a text")
        batch = self.tokenizer.encode_batch(given).batch
        limit = self.model.config.text_length
        for prompt, length in zip(given, batch.lengths.tolist(), strict=True):
            if length > limit:
                raise InputError(
                    f"the prompt {prompt[:40]!r} has {length} tokens, the model takes {limit} at most; shorten it"
                )
        return batch

    @torch.no_grad()
    def match(self, texts: TextBatch, symbols: Tensor, batch_size: int = 64) -> Tensor:
        """How well texts fit images, in nats, float64 ``(B,)``: what orders images of one text.

        It is log p(text | image) where the model draws texts after images. Elsewhere it is the pointwise mutual
        information log p(image | text) − log p(image), which by Bayes' theorem orders them alike.

        Args:
            texts: B texts.
            symbols: int64 ``(B, C, H, W)``.
            batch_size: How many are computed at once.
        """
        found = []
        with evaluating(self.model):
            for start in range(0, len(symbols), batch_size):
                rows = slice(start, start + batch_size)
                some = symbols[rows].to(self.model.device)
                if isinstance(self.model, Chameleon):
                    found.append(self.model.caption_log_prob(texts[rows], some).double())
                else:
                    given = self.model.log_prob(some, Condition(text=texts[rows]))
                    found.append(given.double() - self.model.log_prob(some).double())
        return torch.cat(found).cpu()

    def caption(
        self,
        symbols: Tensor,
        *,
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 64,
    ) -> list[str]:
        """Draw a text for each image; ``symbols`` int64 ``(B, C, H, W)``."""
        drawn = self._chameleon("caption images").caption(
            symbols, sampling=sampling, generator=generator, batch_size=batch_size
        )
        return [self.tokenizer.decode(text.cpu()) for text in drawn.each()]

    def continued(
        self,
        documents: Sequence[Sequence[str | Tensor]],
        *,
        form: Form = "interleaved",
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
        batch_size: int = 64,
    ) -> list[list[str | Tensor]]:
        """Continue documents of texts and of images' codes up to their end.

        Args:
            documents: Texts, and codes int64 ``(C, H, W)``.
            form: Of the documents.
            sampling: How ids are drawn.
            generator: Source of the noise, on the CPU.
            batch_size: How many are drawn at once.

        Returns:
            Of each, what follows it.

        Raises:
            InputError: A document breaks the grammar, or is too long.
        """
        model = self._chameleon("continue documents")
        grammar = model.grammar(form)
        prefixes = []
        for number, document in enumerate(documents):
            segments: list[Segment] = [
                TextSegment(self.tokenizer.encode(part))
                if isinstance(part, str)
                else ImageSegment(part.cpu())
                for part in document
            ]
            try:
                prefixes.append(Document(tuple(segments)).ids(grammar, whole=False))
            except InputError as error:
                raise InputError(f"document {number}: {error}") from None
        padded = torch.nn.utils.rnn.pad_sequence(prefixes, batch_first=True, padding_value=PAD)
        ids = model.generate(
            padded.to(model.device), form, sampling=sampling, generator=generator, batch_size=batch_size
        )
        free = model.grammar("interleaved")
        results = []
        for row, prefix in zip(ids.cpu(), prefixes, strict=True):
            rest = row[len(prefix) :]
            rest = torch.cat([torch.tensor([BOS]), rest[rest != PAD]])
            results.append([self._part(segment) for segment in Document.of(rest, free).segments])
        return results

    def _part(self, segment: Segment) -> str | Tensor:
        return self.tokenizer.decode(segment.tokens) if isinstance(segment, TextSegment) else segment.codes

    def _chameleon(self, what: str) -> Chameleon:
        if not isinstance(self.model, Chameleon):
            raise InputError(f"a {self.model.kind} draws images after texts alone; a chameleon can {what}")
        return self.model


def text_model(model: AutoregressiveModel, tokenizer: TextTokenizer | None) -> TextModel | None:
    """A model with its text tokenizer; None where it knows no text.

    Raises:
        InputError: It knows text and there is no tokenizer for it, or the other way round.
    """
    if isinstance(model, TextImageModel):
        if tokenizer is None:
            raise InputError(f"a {model.kind} needs its text tokenizer; a run holds it in {TEXT_FOLDER}/")
        return TextModel(model, tokenizer)
    if tokenizer is not None:
        raise InputError(f"a text tokenizer was given, but a {model.kind} takes no text")
    return None


def open_text_tokenizer(folder: Path) -> TextTokenizer | None:
    """The text tokenizer of a pipeline's folder; None where there is none."""
    return TextTokenizer.from_pretrained(folder / TEXT_FOLDER) if (folder / TEXT_FOLDER).is_dir() else None
