"""The built-in dataset: handwritten digits, with labels and captions."""

from __future__ import annotations

from PIL import Image

from rasterwise.data.sources.rows import IndexedRows
from rasterwise.data.sources.tables import DatasetTable

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digit_captions(digit: int) -> tuple[str, ...]:
    """The wordings of a digit's caption; no wording fits two digits.

    Example:
        >>> digit_captions(8)
        ('an eight', 'the digit eight', 'a handwritten eight', 'an 8', 'number 8')
    """
    word, article = WORDS[digit], "an" if digit == 8 else "a"
    return (
        f"{article} {word}",
        f"the digit {word}",
        f"a handwritten {word}",
        f"{article} {digit}",
        f"number {digit}",
    )


_DIGIT_OF = {caption: digit for digit in range(10) for caption in digit_captions(digit)}


def digit_in(caption: str) -> int | None:
    """The digit that a caption is about; None where it is no wording of ``digit_captions``."""
    return _DIGIT_OF.get(caption)


def open_digits() -> IndexedRows:
    """scikit-learn's copy of the UCI digits (E. Alpaydin, C. Kaynak): 1,797 of them, 8×8, 17 greys."""
    import datasets
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [Image.fromarray((image * 255 / 16).round().astype("uint8")) for image in digits.images]
    labels = digits.target.tolist()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=[str(digit) for digit in range(10)]),
            "caption": datasets.List(datasets.Value("string")),
        }
    )
    rows = {"image": images, "label": labels, "caption": [list(digit_captions(label)) for label in labels]}
    return IndexedRows(DatasetTable(datasets.Dataset.from_dict(rows, features=features)))
