"""What a model may be told about a picture before it draws it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

UNCONDITIONED = -1
"""The label of a row that is told nothing: what label dropout trains and guidance compares with."""


@dataclass(frozen=True)
class Condition:
    """A batch of conditions, one a picture.

    Attributes:
        label: Class labels, int64 ``(B,)``; ``UNCONDITIONED`` (-1) where a row is told nothing.

    Example:
        >>> both = Condition(torch.tensor([3, 7])).with_unconditioned()
        >>> both.label
        tensor([ 3,  7, -1, -1])
    """

    label: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        return Condition(self.label[rows])

    def to(self, device: torch.device | str) -> Condition:
        return Condition(self.label.to(device))

    def with_unconditioned(self) -> Condition:
        """This batch followed by as many unconditioned rows."""
        return Condition(torch.cat([self.label, torch.full_like(self.label, UNCONDITIONED)]))
