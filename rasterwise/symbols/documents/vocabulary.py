"""One vocabulary for text and images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rasterwise.errors import InputError

PAD, BOS, EOS, BOI, EOI = range(5)
"""The special ids: padding, the document's beginning and end, an image's beginning and end."""
SPECIALS = 5


@dataclass(frozen=True)
class Vocabulary:
    """Ids of documents: special ones, then the text tokenizer's tokens, then the image tokenizer's codes.

    Attributes:
        text: Tokens of the text tokenizer; 0 where documents have no text.
        image: Codes of the image tokenizer.

    Example:
        >>> vocabulary = Vocabulary(text=256, image=512)
        >>> vocabulary.size, vocabulary.first_text, vocabulary.first_image
        (773, 5, 261)
    """

    text: int
    image: int

    def __post_init__(self) -> None:
        if self.text < 0 or self.image < 2:
            raise InputError(
                f"a vocabulary of {self.text} tokens and {self.image} codes; expected 0 and 2 at least"
            )

    @property
    def size(self) -> int:
        """How many ids there are (V)."""
        return SPECIALS + self.text + self.image

    @property
    def first_text(self) -> int:
        """The id of token 0."""
        return SPECIALS

    @property
    def first_image(self) -> int:
        """The id of code 0."""
        return SPECIALS + self.text

    def is_text(self, ids: Tensor) -> Tensor:
        """Which ids are tokens of text, bool of the same shape."""
        return (ids >= self.first_text) & (ids < self.first_image)

    def is_code(self, ids: Tensor) -> Tensor:
        """Which ids are image codes, bool of the same shape."""
        return (ids >= self.first_image) & (ids < self.size)

    def of_tokens(self, tokens: Tensor) -> Tensor:
        """Ids of text tokens, both int64; InputError where one is outside ``[0, text)``."""
        return _shifted(tokens, self.first_text, self.text, "text tokens")

    def of_codes(self, codes: Tensor) -> Tensor:
        """Ids of image codes, both int64; InputError where one is outside ``[0, image)``."""
        return _shifted(codes, self.first_image, self.image, "image codes")

    def name(self, number: int) -> str:
        """What an id is, for messages."""
        if number < SPECIALS:
            return ("PAD", "BOS", "EOS", "BOI", "EOI")[number]
        if number < self.first_image:
            return f"text token {number - self.first_text}"
        return f"image code {number - self.first_image}"


def _shifted(values: Tensor, first: int, count: int, what: str) -> Tensor:
    if values.numel() and (int(values.min()) < 0 or int(values.max()) >= count):
        low, high = int(values.min()), int(values.max())
        raise InputError(
            f"{what} lie in [{low}, {high}], expected [0, {count - 1}]; is it the same tokenizer?"
        )
    return values + first
