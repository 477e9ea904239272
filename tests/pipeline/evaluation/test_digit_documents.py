"""Answers to tasks about digits are counted right only if they are."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from pipeline.evaluation.classifier import Classifier
from pipeline.evaluation.digit_documents import Answered, accuracies
from rasterwise.data.digit_documents import DigitDocument


class Level(Classifier):
    """Takes the level of an image's first pixel for its digit."""

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0, 0].long()


def digit(level: int) -> Image.Image:
    return Image.new("L", (8, 8), level)


@pytest.mark.parametrize(
    ("task", "number", "right", "wrong"),
    [
        ("name", 8, [["an eight"], ["number ", "8"]], [["a eight"], ["a three"], [], [digit(8)]]),
        ("draw", 3, [[digit(3)]], [[digit(4)], [digit(3), digit(3)], ["three"], []]),
    ],
)
def test_one_answer(task: str, number: int, right: list[list[object]], wrong: list[list[object]]) -> None:
    document = DigitDocument(task, (), (), number)  # type: ignore[arg-type]
    answers = [Answered(document, one) for one in right + wrong]  # type: ignore[arg-type]
    (share,) = accuracies(answers, Level((1, 8, 8), 10)).values()
    assert share == len(right) / len(answers)


def test_sums_are_written_and_drawn() -> None:
    """Each on its own: the word, and as many figures as the sum has."""
    document = DigitDocument("sum", (), (), 12)
    answers = [
        ["twelve", digit(1), digit(2)], ["twelve", digit(2)], ["two", digit(1), digit(2)], ["twelve", digit(1), "x"],
    ]  # fmt: skip
    found = accuracies([Answered(document, one) for one in answers], Level((1, 8, 8), 10))
    assert found == {"written": 0.5, "drawn": 0.5}
