"""Texts as padded batches of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rasterwise.errors import InputError


@dataclass(frozen=True)
class TextBatch:
    """Texts of different lengths in one batch.

    Attributes:
        tokens: int64 ``(B, T)``, each in ``[0, K)`` of a text tokenizer; 0 after a text's end.
        lengths: int64 ``(B,)``, how many tokens each text has. A text of length 0 says nothing: label dropout and
            guidance take it for the unconditional case.

    Raises:
        InputError: The shapes do not fit each other.

    Example:
        >>> batch = TextBatch.of([torch.tensor([7, 8, 9]), torch.tensor([5])])
        >>> batch.tokens.tolist(), batch.lengths.tolist()
        ([[7, 8, 9], [5, 0, 0]], [3, 1])
        >>> batch.mask.tolist()
        [[True, True, True], [True, False, False]]
    """

    tokens: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.lengths.shape != self.tokens.shape[:1]:
            shapes = f"{tuple(self.tokens.shape)} and {tuple(self.lengths.shape)}"
            raise InputError(f"tokens and lengths have shapes {shapes}, expected (B, T) and (B,)")

    @classmethod
    def of(cls, texts: Sequence[Tensor]) -> TextBatch:
        """Texts, each int64 ``(n,)``, padded to the longest."""
        lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)
        tokens = torch.zeros(len(texts), max(map(len, texts), default=0), dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            row[: len(text)] = text
        return cls(tokens, lengths)

    def each(self) -> list[Tensor]:
        """Every text without its padding, int64 ``(n,)``."""
        return [row[:length] for row, length in zip(self.tokens, self.lengths.tolist(), strict=True)]

    @property
    def mask(self) -> Tensor:
        """Which tokens are of a text, bool ``(B, T)``; False for padding."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | Tensor) -> TextBatch:
        return TextBatch(self.tokens[rows], self.lengths[rows])

    def to(self, device: torch.device | str) -> TextBatch:
        return TextBatch(self.tokens.to(device), self.lengths.to(device))

    def pin_memory(self) -> TextBatch:
        """In page-locked memory, from where a GPU copies without waiting."""
        return TextBatch(self.tokens.pin_memory(), self.lengths.pin_memory())

    def share_memory(self) -> TextBatch:
        """In memory that other processes see; RuntimeError where there is too little of it."""
        self.tokens.share_memory_()
        self.lengths.share_memory_()
        return self

    def with_unconditioned(self) -> TextBatch:
        """This batch followed by as many empty texts."""
        return TextBatch(
            torch.cat([self.tokens, torch.zeros_like(self.tokens)]),
            torch.cat([self.lengths, torch.zeros_like(self.lengths)]),
        )
