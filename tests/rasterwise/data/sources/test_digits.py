"""The built-in digits and their captions."""

from __future__ import annotations

from rasterwise.data.sources.digits import digit_captions, digit_in, open_digits


def test_captions_of_different_digits_differ() -> None:
    """Every wording leads back to its digit; other text to none."""
    captions = [caption for digit in range(10) for caption in digit_captions(digit)]
    assert len(set(captions)) == 50
    assert all(digit_in(caption) == digit for digit in range(10) for caption in digit_captions(digit))
    assert digit_in("a cat") is None


def test_every_digit_has_all_wordings() -> None:
    """Rows hold an image, its label and the captions of that label."""
    rows = open_digits()
    assert len(rows) == 1797
    for row in rows.sample(20):
        assert set(row.values) == {"image", "label", "caption"}
        assert tuple(row.values["caption"]) == digit_captions(row.values["label"])
