"""Documents as segments, and as sequences of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.symbols.documents.grammar import Grammar
from rasterwise.symbols.documents.vocabulary import BOI, BOS, EOI, EOS, PAD


@dataclass(frozen=True, eq=False)
class TextSegment:
    """A stretch of text.

    Attributes:
        tokens: int64 ``(n,)`` in ``[0, K)`` of the text tokenizer.
    """

    tokens: Tensor


@dataclass(frozen=True, eq=False)
class ImageSegment:
    """An image.

    Attributes:
        codes: int64 ``(C, H, W)`` in ``[0, K)`` of the image tokenizer.
    """

    codes: Tensor


Segment = TextSegment | ImageSegment


@dataclass(frozen=True, eq=False)
class Document:
    """Text and images in reading order.

    Ids do not tell where one of two texts in a row ends: they are one text to a model, and come back as one.

    Attributes:
        segments: In order; an empty text counts for nothing.

    Example:
        >>> import torch
        >>> from rasterwise import Grammar, Grid
        >>> grammar = Grammar(text=256, grid=Grid(1, 1, 2, 8), length=10)
        >>> image = ImageSegment(torch.tensor([[[6, 7]]]))
        >>> ids = Document((TextSegment(torch.tensor([97])), image)).ids(grammar)
        >>> ids.tolist()  # BOS, "a", BOI, two codes, EOI, EOS
        [1, 102, 3, 267, 268, 4, 2]
        >>> [type(segment).__name__ for segment in Document.of(ids, grammar).segments]
        ['TextSegment', 'ImageSegment']
    """

    segments: tuple[Segment, ...]

    def ids(self, grammar: Grammar, *, whole: bool = True) -> Tensor:
        """The document as a sequence.

        Args:
            grammar: Its vocabulary, and what must be legal.
            whole: With EOS; without it, the sequence is a prefix that a model can continue.

        Returns:
            int64 ``(T,)``.

        Raises:
            InputError: The document breaks the grammar, is too long, or does not fit the vocabulary.
        """
        vocabulary, parts = grammar.vocabulary, [torch.tensor([BOS])]
        for segment in self.segments:
            if isinstance(segment, TextSegment):
                parts.append(vocabulary.of_tokens(segment.tokens))
                continue
            if tuple(segment.codes.shape) != grammar.grid.shape:
                found, expected = tuple(segment.codes.shape), grammar.grid.shape
                raise InputError(f"an image has codes {found}, expected {expected}: is it of another size?")
            codes = grammar.grid.flatten(segment.codes[None])[0]
            parts += [torch.tensor([BOI]), vocabulary.of_codes(codes), torch.tensor([EOI])]
        sequence = torch.cat([*parts, torch.tensor([EOS])] if whole else parts)
        if len(sequence) > grammar.length:
            images = sum(isinstance(segment, ImageSegment) for segment in self.segments)
            raise InputError(
                f"a document with {images} images has {len(sequence)} ids, the limit is {grammar.length}; shorten "
                "it, or raise the length"
            )
        grammar.check(sequence[None], whole=whole)
        return sequence

    @classmethod
    def of(cls, ids: Tensor, grammar: Grammar) -> Document:
        """The document of a sequence.

        Args:
            ids: int64 ``(T,)`` from BOS on, ended or not; an image must be whole.
            grammar: As it was written with.

        Raises:
            InputError: The sequence breaks the grammar, or stops within an image.
        """
        grammar.check(ids[None], whole=False)
        if grammar.states(ids[None])[0, -1, 2] >= 0:
            raise InputError(f"the sequence of {len(ids)} ids stops within an image, expected all its codes")
        vocabulary, segments, index = grammar.vocabulary, list[Segment](), 0
        is_text = vocabulary.is_text(ids).tolist()
        numbers = ids.tolist()
        while index < len(numbers):
            if is_text[index]:
                stop = next((i for i in range(index, len(numbers)) if not is_text[i]), len(numbers))
                segments.append(TextSegment(ids[index:stop] - vocabulary.first_text))
                index = stop
            elif numbers[index] == BOI:
                stop = index + 1 + grammar.grid.size
                codes = ids[index + 1 : stop] - vocabulary.first_image
                segments.append(ImageSegment(grammar.grid.unflatten(codes[None])[0]))
                index = stop
            else:
                index += 1
        return cls(tuple(segments))


def document_batch(documents: Sequence[Document], grammar: Grammar) -> Tensor:
    """Documents as one batch of sequences, int64 ``(B, T)``, padded to the longest with PAD.

    Raises:
        InputError: As ``Document.ids``; the message says which document it is.
    """
    sequences = []
    for number, document in enumerate(documents):
        try:
            sequences.append(document.ids(grammar))
        except InputError as error:
            raise InputError(f"document {number}: {error}") from None
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=PAD)
