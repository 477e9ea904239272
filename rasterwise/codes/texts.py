"""Codes with texts, as models of text and images read them: captions as tokens, documents as sequences of ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from rasterwise.codes.documents import DocumentItems, EncodedDocument
from rasterwise.data.splits import Batch, Change, Fetched, Split
from rasterwise.data.workers import BrokenImages
from rasterwise.errors import InputError
from rasterwise.symbols.documents.grammar import Grammar
from rasterwise.symbols.documents.vocabulary import BOI, BOS, EOI, EOS, PAD
from rasterwise.tokenizers.text import TextTokenizer


def captions_of(split: Split) -> Iterator[str]:
    """All captions of a split, those of every item in order.

    Raises:
        InputError: The split was encoded without captions.
    """
    for batch in split.ordered(4096):
        if batch.captions is None:
            raise InputError("the codes have no captions; encode the images again with --captions")
        for some in batch.captions:
            yield from some


class TokenizedCaptions:
    """A split whose batches have one caption an item, as tokens.

    Of shuffled items it is the one that was drawn. In order, item i gets number i mod k of its k captions, so that a
    measure over the split is always of the same texts.

    Args:
        split: With captions.
        tokenizer: Of the captions.
    """

    def __init__(self, split: Split, tokenizer: TextTokenizer) -> None:
        self.split, self.tokenizer = split, tokenizer

    @property
    def fingerprint(self) -> str:
        return self.split.fingerprint

    @property
    def length(self) -> int:
        return self.split.length

    @property
    def broken(self) -> BrokenImages:
        return self.split.broken

    def shuffled(
        self,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        change: Change | None = None,
    ) -> Iterator[Batch]:
        for batch in self.split.shuffled(
            batch_size, seed=seed, start=start, rank=rank, world=world, change=change
        ):
            yield self._tokenized(batch, [0] * len(batch))

    def ordered(
        self, batch_size: int, *, rank: int = 0, world: int = 1, start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        for batch in self.split.ordered(batch_size, rank=rank, world=world, start=start, stop=stop):
            assert batch.indices is not None, "read in order, items have indices"
            yield self._tokenized(batch, batch.indices.tolist())

    def _tokenized(self, batch: Batch, turns: Sequence[int]) -> Batch:
        assert batch.captions is not None, "the split has captions"
        chosen = tuple(some[turn % len(some)] for some, turn in zip(batch.captions, turns, strict=True))
        texts = self.tokenizer.encode_batch(chosen).batch
        return dataclasses.replace(batch, captions=tuple((one,) for one in chosen), texts=texts)


class DocumentSequences:
    """Documents as sequences of ids: the items of a split.

    A batch's values are int64 ``(B, T)``, padded with PAD to its longest. Those to train on are sorted by length within
    their batch, so that the parts that gradient accumulation cuts a batch into are padded less.

    Args:
        documents: Which.
        tokenizer: Of their texts.
        grammar: Its vocabulary; documents must not be longer than it allows.
    """

    def __init__(self, documents: DocumentItems, tokenizer: TextTokenizer, grammar: Grammar) -> None:
        self.documents, self.tokenizer, self.grammar = documents, tokenizer, grammar

    def __len__(self) -> int:
        return len(self.documents)

    def fetch(self, indices: list[int], *, replace: bool) -> Fetched:
        try:
            sequences = [self._ids(index) for index in indices]
        except InputError as error:
            return Fetched(None, {}, str(error))
        if replace:
            sequences.sort(key=len)
        values = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=PAD)
        return Fetched(Batch(values, None, None if replace else torch.tensor(indices)), {})

    def _ids(self, index: int) -> Tensor:
        """As ``Document.ids``, at a fraction of the cost: what was encoded is legal unless it is too long."""
        vocabulary, ids = self.grammar.vocabulary, [BOS]
        for part in self.documents[index]:
            if isinstance(part, str):
                tokens = self.tokenizer.encode(part).tolist()
                ids += [vocabulary.first_text + token for token in tokens]
            else:
                ids += [BOI, *(part + vocabulary.first_image).tolist(), EOI]
        if len(ids) + 1 > self.grammar.length:
            raise InputError(
                f"document {index} has {len(ids) + 1} ids, the limit is {self.grammar.length}; shorten it, or raise "
                "--length"
            )
        return torch.tensor([*ids, EOS])


def document_lengths(documents: Iterable[EncodedDocument], tokenizer: TextTokenizer, size: int) -> np.ndarray:
    """How many ids documents have, from BOS to EOS.

    Args:
        documents: Which.
        tokenizer: Of their texts.
        size: Codes of an image.

    Returns:
        int64 ``(n,)``.
    """
    lengths = [
        2 + sum(len(tokenizer.encode(part)) if isinstance(part, str) else size + 2 for part in document)
        for document in documents
    ]
    return np.array(lengths, dtype=np.int64)
