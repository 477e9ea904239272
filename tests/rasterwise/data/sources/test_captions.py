"""Captions in rows: one or several, found by the name of their column, drawn among and never dropped."""

from __future__ import annotations

from collections import Counter

import pytest

from rasterwise.data.sources.captions import caption_name, captions_in, chosen_caption
from rasterwise.errors import InputError


def test_every_caption_is_drawn_once_a_cycle() -> None:
    """In any k epochs from a multiple of k each of an image's k captions comes once; the seed decides the order."""
    captions = ["a", "b", "c"]
    for index in range(20):
        for cycle in range(5):
            epochs = range(3 * cycle, 3 * cycle + 3)
            drawn = {chosen_caption(captions, seed=1, epoch=epoch, index=index) for epoch in epochs}
            assert drawn == set(captions)
    orders = {
        "".join(chosen_caption(captions, seed=seed, epoch=epoch, index=0) for epoch in range(3))
        for seed in range(50)
    }
    assert len(orders) == 6
    first = Counter(chosen_caption(captions, seed=0, epoch=0, index=index) for index in range(3000))
    assert all(900 < count < 1100 for count in first.values())


def test_a_row_holds_one_caption_or_several() -> None:
    """Strings and lists of strings; the order is kept."""
    assert captions_in("a cat") == ("a cat",)
    assert captions_in(["a cat", "a pet"]) == ("a cat", "a pet")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "has no caption"),
        ([], "has no caption"),
        ("", "has an empty caption"),
        (["a", " "], "has an empty caption"),
        (["a", 3], "has a int for a caption"),
        (b"a", "has a bytes for captions"),
    ],
)
def test_what_is_no_caption_is_refused(value: object, message: str) -> None:
    """An image never goes without a caption in silence."""
    with pytest.raises(InputError, match=message):
        captions_in(value)


def test_the_column_of_captions_is_found_by_its_name() -> None:
    """In a fixed order of preference, or as chosen."""
    assert caption_name(["image", "text", "caption"], None) == "caption"
    assert caption_name(["image", "text", "caption"], "text") == "text"
    with pytest.raises(InputError, match=r"has no captions under 'alt'; it has image, text"):
        caption_name(["image", "text"], "alt")
    with pytest.raises(InputError, match=r"under one of caption, captions"):
        caption_name(["image"], None)
