"""Captions: where a row holds them, and which of its captions an image gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rasterwise.errors import InputError

CAPTION_NAMES = ("caption", "captions", "text", "description", "prompt")
"""Names of columns and keys that captions are looked for under, in this order."""


def captions_in(value: object) -> tuple[str, ...]:
    """The captions that a column or a key holds: a text, or a list of texts.

    Raises:
        InputError: There is none, one is empty, or one is no text. The message lacks what it is about.
    """
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise InputError(f"has a {type(value).__name__} for captions, expected a text or a list of texts")
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"has a {type(text).__name__} for a caption, expected a text")
        if not text.strip():
            raise InputError("has an empty caption; write one, or remove it")
    if not texts:
        raise InputError("has no caption; write one, or remove the image")
    return tuple(texts)


def caption_name(names: Iterable[str], chosen: str | None) -> str:
    """Which of some columns or keys holds captions.

    Args:
        names: All there are.
        chosen: The one that the user named.

    Raises:
        InputError: The one that was named is not there, or none has a name that captions go by. The message lacks
            what it is about.
    """
    names = tuple(names)
    found = next((name for name in ((chosen,) if chosen else CAPTION_NAMES) if name in names), None)
    if found is None:
        expected = repr(chosen) if chosen else f"one of {', '.join(CAPTION_NAMES)}"
        raise InputError(f"has no captions under {expected}; it has {', '.join(names) or 'nothing'}")
    return found


def chosen_caption(captions: Sequence[str], *, seed: int, epoch: int, index: int) -> str:
    """The caption that an image gets in an epoch.

    Each of an image's k captions is drawn once in every k epochs, in an order that the seed decides, so that none
    is ever dropped and all weigh the same.

    Args:
        captions: Of the image, in the order of the data.
        seed: Of the run.
        epoch: From 0.
        index: Of the image in its split.
    """
    cycle, turn = divmod(epoch, len(captions))
    order = np.random.default_rng([seed, index, cycle]).permutation(len(captions))
    return captions[order[turn]]
