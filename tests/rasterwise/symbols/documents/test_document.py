"""Documents as ids and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rasterwise.errors import InputError
from rasterwise.symbols.documents.document import (
    Document,
    ImageSegment,
    Segment,
    TextSegment,
    document_batch,
)
from rasterwise.symbols.documents.grammar import Grammar
from rasterwise.symbols.documents.vocabulary import EOS, PAD, Vocabulary
from rasterwise.symbols.grid import Grid
from rasterwise.tokenizers.text import TextTokenizer

GRID = Grid(2, 1, 2, 3)
GRAMMAR = Grammar(text=256, grid=GRID, length=64)
IMAGES = st.lists(st.integers(0, 2), min_size=4, max_size=4)


def image(codes: list[int]) -> ImageSegment:
    return ImageSegment(torch.tensor(codes).view(GRID.shape))


def content(document: Document) -> list[object]:
    return [
        segment.tokens.tolist() if isinstance(segment, TextSegment) else segment.codes.tolist()
        for segment in document.segments
    ]


@given(st.lists(st.one_of(st.text(max_size=3), IMAGES), max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_document_comes_back(segments: list[str | list[int]]) -> None:
    """Any mix of texts and images, typed text among them; neighbouring texts come back as one."""
    tokenizer, parts, expected = TextTokenizer(), list[Segment](), list[object]()
    for segment in segments:
        if isinstance(segment, list):
            parts.append(image(segment))
            expected.append(parts[-1].codes.tolist())
            continue
        parts.append(TextSegment(tokenizer.encode(segment)))
        joined = isinstance(expected[-1], str) if expected else False
        if joined:
            expected[-1] = str(expected[-1]) + segment
        elif segment:
            expected.append(segment)
    ids = Document(tuple(parts)).ids(GRAMMAR)
    found = Document.of(ids, GRAMMAR)
    assert [
        tokenizer.decode(segment.tokens) if isinstance(segment, TextSegment) else segment.codes.tolist()
        for segment in found.segments
    ] == expected
    assert torch.equal(found.ids(GRAMMAR), ids)


def test_typed_text_is_never_special() -> None:
    """Names of special ids, and every single byte, stay within the ids of text."""
    tokenizer, vocabulary = TextTokenizer(), GRAMMAR.vocabulary
    for text in ("<boi>", "[BOS]", "\x00\x01\x02\x03\x04", "EOI", "image code 1"):
        assert vocabulary.is_text(vocabulary.of_tokens(tokenizer.encode(text))).all()
    assert vocabulary.is_text(vocabulary.of_tokens(torch.arange(256))).all()


def test_special_text_and_image_ids_share_out_the_vocabulary() -> None:
    """Every id is of one kind, and has a name."""
    vocabulary = Vocabulary(text=3, image=4)
    ids = torch.arange(vocabulary.size)
    kinds = torch.stack([ids < vocabulary.first_text, vocabulary.is_text(ids), vocabulary.is_code(ids)])
    assert kinds.sum(1).tolist() == [5, 3, 4]
    assert (kinds.sum(0) == 1).all()
    assert len({vocabulary.name(number) for number in ids.tolist()}) == vocabulary.size
    with pytest.raises(InputError, match="same tokenizer"):
        vocabulary.of_codes(torch.tensor([4]))
    with pytest.raises(InputError, match="expected 0 and 2"):
        Vocabulary(text=3, image=1)


def test_a_batch_is_padded_to_its_longest() -> None:
    """PAD follows EOS, and the documents come back."""
    documents = [Document((image([0, 1, 2, 0]), TextSegment(torch.tensor([9, 8])))), Document(())]
    batch = document_batch(documents, GRAMMAR)
    assert batch[1].tolist() == [1, EOS, *[PAD] * 8]
    assert [content(Document.of(ids, GRAMMAR)) for ids in batch] == [content(one) for one in documents]


def test_an_open_document_is_a_prefix_of_the_whole_one() -> None:
    """All but EOS; it decodes as far as its images are whole."""
    document = Document((TextSegment(torch.tensor([1])), image([0, 0, 1, 2])))
    open_ids = document.ids(GRAMMAR, whole=False)
    assert torch.equal(open_ids, document.ids(GRAMMAR)[:-1])
    assert content(Document.of(open_ids, GRAMMAR)) == content(document)
    with pytest.raises(InputError, match="stops within an image"):
        Document.of(open_ids[:-1], GRAMMAR)


def test_refusals() -> None:
    """Another size, another tokenizer, another form, too long: one line each."""
    with pytest.raises(InputError, match=r"codes \(1, 2, 2\), expected \(2, 1, 2\)"):
        Document((ImageSegment(torch.zeros(1, 2, 2, dtype=torch.int64)),)).ids(GRAMMAR)
    with pytest.raises(InputError, match=r"image codes lie in \[0, 3\]"):
        Document((image([0, 1, 2, 3]),)).ids(GRAMMAR)
    with pytest.raises(InputError, match="with 9 images has 56 ids, the limit is 50"):
        Document((image([0, 1, 2, 0]),) * 9).ids(Grammar(256, GRID, 50))
    one = (image([0, 1, 2, 0]),)
    documents = [Document(one), Document((*one, TextSegment(torch.tensor([7]))))]
    with pytest.raises(InputError, match=r"document 1: .*id 7 is text token 7, expected EOS"):
        document_batch(documents, Grammar(256, GRID, 50, "image"))
