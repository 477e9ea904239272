"""Documents about digits: right answers, from the images given, the same for the same seed and index."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor

from rasterwise.data.config import DataConfig
from rasterwise.data.dataset import open_images
from rasterwise.data.digit_documents import (
    SUM_WORDS,
    TASKS,
    DigitDocument,
    DigitDocuments,
)
from rasterwise.data.indexed import first_of
from rasterwise.data.sources.digits import digit_in
from rasterwise.errors import InputError
from rasterwise.symbols.documents.document import Document, ImageSegment, TextSegment
from rasterwise.symbols.documents.grammar import Grammar
from rasterwise.tokenizers.pixels import PixelTokenizer, PixelTokenizerConfig
from rasterwise.tokenizers.text import TextTokenizer

# Each of these images says in its first pixel which it is, and in its second one which digit.
LABELS = torch.arange(30) % 10
IMAGES = (
    torch.stack([torch.arange(30), LABELS, torch.zeros(30), torch.full((30,), 200)], 1)
    .view(30, 1, 2, 2)
    .byte()
)


def some(documents: DigitDocuments, count: int = 400) -> list[DigitDocument]:
    return [documents[index] for index in range(count)]


def digit_of(image: str | Tensor) -> int:
    assert isinstance(image, Tensor)
    return int(image[0, 0, 1])


def test_answers_are_right() -> None:
    """Names fit images, drawn digits fit names, sums add up, edits undo to the image in the prompt."""
    for document in some(DigitDocuments(IMAGES, LABELS, largest_sum=18)):
        first, *_ = document.prompt
        if document.task == "name":
            assert isinstance(document.answer[0], str)
            assert digit_of(first) == digit_in(document.answer[0]) == document.number
        elif document.task == "draw":
            assert isinstance(first, str)
            assert digit_of(document.answer[0]) == digit_in(first) == document.number
        elif document.task == "sum":
            begin, one, middle, other, equals = document.prompt
            assert (begin, middle, equals) == ("the sum of ", " and ", " is ")
            assert digit_of(one) + digit_of(other) == document.number
            word, *figures = document.answer
            assert word == SUM_WORDS[document.number]
            assert int("".join(str(digit_of(figure)) for figure in figures)) == document.number
        else:
            (edited,), image = document.answer, document.prompt[1]
            assert isinstance(image, Tensor)
            assert isinstance(edited, Tensor)
            undone = 255 - edited if document.task == "invert" else edited.rot90(-1, (1, 2))
            assert torch.equal(undone, image)
            assert digit_of(image) == document.number
            assert first == f"{document.task} "


def test_a_document_is_a_function_of_seed_and_index() -> None:
    """In any order of access; another seed gives others; all tasks, digits and pairs occur about equally often."""
    documents = DigitDocuments(IMAGES, LABELS, seed=3)
    backwards = [documents[index] for index in range(399, -1, -1)][::-1]

    def content(some: list[DigitDocument]) -> list[object]:
        parts = (document.prompt + document.answer for document in some)
        return [part if isinstance(part, str) else part.tolist() for part in itertools.chain(*parts)]

    assert content(some(documents)) == content(backwards)
    assert content(some(documents)) != content(some(DigitDocuments(IMAGES, LABELS, seed=4)))
    many = some(documents, 3000)
    tasks = Counter(document.task for document in many)
    assert set(tasks) == set(TASKS)
    assert all(500 < count < 700 for count in tasks.values())
    sums = {tuple(map(digit_of, document.prompt[1::2])) for document in many if document.task == "sum"}
    assert sums == {(a, b) for a in range(10) for b in range(10) if a + b <= 9}


def test_train_and_test_documents_share_no_image() -> None:
    """Built on the two splits of the built-in digits."""
    data = open_images(DataConfig())
    seen = []
    for split in (data.train, data.test):
        batch = first_of(split, 0)
        assert batch.labels is not None
        documents = DigitDocuments(batch.values, batch.labels, tasks=("name", "draw", "sum"))
        images = (part for one in some(documents, 300) for part in one.prompt + one.answer)
        seen.append({part.numpy().tobytes() for part in images if isinstance(part, Tensor)})
    everything = first_of(data.train, 0).values
    duplicates = {image.numpy().tobytes() for image in everything} & {
        image.numpy().tobytes() for image in first_of(data.test, 0).values
    }
    assert seen[0] & seen[1] <= duplicates
    assert len(duplicates) < 5


def test_documents_become_ids_and_come_back() -> None:
    """Through the pixel tokenizer, bytes and the grammar, all of them within a limit known beforehand."""
    pixels, text = PixelTokenizer(PixelTokenizerConfig(levels=4)), TextTokenizer()
    grid = pixels.grid(1, 2, 2)
    grammar = Grammar(text.size, grid, length=2 + 3 * (grid.size + 2) + len("the sum of  and  is seven"))
    for one in some(DigitDocuments(IMAGES, LABELS), 100):
        segments, expected = [], list[object]()
        for part in one.stored().content:
            if isinstance(part, str):
                segments.append(TextSegment(text.encode(part)))
                if expected and isinstance(expected[-1], str):
                    part = expected.pop() + part
                expected.append(part)
            else:
                codes = pixels.encode(part[None])
                segments.append(ImageSegment(codes[0]))
                expected.append(pixels.decode(codes)[0].tolist())
        found = Document.of(Document(tuple(segments)).ids(grammar), grammar)
        assert expected == [
            text.decode(segment.tokens)
            if isinstance(segment, TextSegment)
            else pixels.decode(segment.codes[None])[0].tolist()
            for segment in found.segments
        ]


def test_refusals() -> None:
    """No task, a digit without an image, a sum that cannot be, and images that cannot be rotated."""
    with pytest.raises(InputError, match="tasks are none"):
        DigitDocuments(IMAGES, LABELS, tasks=())
    with pytest.raises(InputError, match="tasks are add"):
        DigitDocuments(IMAGES, LABELS, tasks=("add",))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no image of the digit 9"):
        DigitDocuments(IMAGES[:9], LABELS[:9])
    with pytest.raises(InputError, match="expected 0 to 18"):
        DigitDocuments(IMAGES, LABELS, largest_sum=19)
    with pytest.raises(InputError, match="images of 1×4 cannot be rotated"):
        DigitDocuments(IMAGES.view(30, 1, 1, 4), LABELS)
