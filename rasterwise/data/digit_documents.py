"""Interleaved documents made from images of digits: no download, no end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rasterwise.data.documents import StoredDocument
from rasterwise.data.sources.digits import WORDS, digit_captions
from rasterwise.errors import InputError

SUM_WORDS = (
    *WORDS,
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
)

Task = Literal["name", "draw", "sum", "invert", "rotate"]
TASKS: tuple[Task, ...] = ("name", "draw", "sum", "invert", "rotate")


@dataclass(frozen=True, eq=False)
class DigitDocument:
    """A task about digits, and its answer.

    Attributes:
        task: Which.
        prompt: Texts and images (uint8 ``(C, H, W)``) that ask.
        answer: Those that answer.
        number: What the answer is about: the digit that is named, drawn or edited, or the sum.
    """

    task: Task
    prompt: tuple[str | Tensor, ...]
    answer: tuple[str | Tensor, ...]
    number: int

    def stored(self, where: str = "digit documents") -> StoredDocument:
        """Prompt and answer as one document."""
        return StoredDocument(self.prompt + self.answer, where)


class DigitDocuments:
    """Documents about digits without end, each a function of the seed and its index alone.

    The tasks: "name" an image of a digit; "draw" a digit; the "sum" of two digits that are drawn, written as a
    word and then drawn, with an image for each of its figures; "invert" and "rotate" (a quarter turn, left) an
    image. The first segment tells the task: what follows an image at the beginning is its name. Train and test
    documents come from images of the two splits.

    Args:
        images: uint8 ``(N, C, H, W)``, square for "rotate".
        labels: int64 ``(N,)``, 0 to 9.
        seed: Another seed gives other documents.
        tasks: Which, all equally often.
        largest_sum: 9 takes those pairs of digits whose sum has one figure; up to 18.

    Raises:
        InputError: There are no tasks, or an unknown one; a digit has no image; images to rotate are not square.

    Example:
        >>> import torch
        >>> images, labels = torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.arange(10)
        >>> document = DigitDocuments(images, labels, tasks=("sum",))[0]
        >>> [part if isinstance(part, str) else part.shape[1:] for part in document.prompt]
        ['the sum of ', torch.Size([8, 8]), ' and ', torch.Size([8, 8]), ' is ']
        >>> document.number, document.answer[0]
        (7, 'seven')
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int = 0,
        tasks: Sequence[Task] = TASKS,
        largest_sum: int = 9,
    ) -> None:
        unknown = [task for task in tasks if task not in TASKS]
        if unknown or not tasks:
            raise InputError(f"tasks are {', '.join(tasks) or 'none'}, expected some of {', '.join(TASKS)}")
        if not 0 <= largest_sum <= 18:
            raise InputError(f"largest_sum is {largest_sum}, expected 0 to 18")
        if "rotate" in tasks and images.shape[-1] != images.shape[-2]:
            raise InputError(f"images of {images.shape[-2]}×{images.shape[-1]} cannot be rotated in place")
        self._images, self._labels = images, labels
        self._of_digit = [(labels == digit).nonzero().flatten() for digit in range(10)]
        lacking = [str(digit) for digit, found in enumerate(self._of_digit) if not len(found)]
        if lacking:
            raise InputError(f"there is no image of the digit {', '.join(lacking)}")
        self._seed, self._tasks = seed, tuple(tasks)
        self._pairs = [(a, b) for a in range(10) for b in range(10) if a + b <= largest_sum]

    def __getitem__(self, index: int) -> DigitDocument:
        """The document of an index, from 0 without end."""
        generator = np.random.default_rng([self._seed, index])
        task = self._tasks[generator.integers(len(self._tasks))]
        if task == "sum":
            return self._sum(generator)
        digit = int(generator.integers(10))
        image = self._image(digit, generator)
        wordings = digit_captions(digit)
        wording = wordings[generator.integers(len(wordings))]
        if task == "name":
            return DigitDocument(task, (image,), (wording,), digit)
        if task == "draw":
            return DigitDocument(task, (wording,), (image,), digit)
        edited = 255 - image if task == "invert" else torch.rot90(image, 1, (1, 2))
        return DigitDocument(task, (f"{task} ", image), (edited,), digit)

    def _sum(self, generator: np.random.Generator) -> DigitDocument:
        first, second = self._pairs[generator.integers(len(self._pairs))]
        total = first + second
        one, other = self._image(first, generator), self._image(second, generator)
        drawn = [self._image(int(figure), generator) for figure in str(total)]
        return DigitDocument(
            "sum", ("the sum of ", one, " and ", other, " is "), (SUM_WORDS[total], *drawn), total
        )

    def _image(self, digit: int, generator: np.random.Generator) -> Tensor:
        found = self._of_digit[digit]
        return self._images[found[generator.integers(len(found))]]
