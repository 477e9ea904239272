"""What images are conditioned on: labels, maps and texts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rasterwise.errors import InputError
from rasterwise.symbols.text import TextBatch

UNCONDITIONED = -1
"""The label of an image without a condition, which label dropout trains and guidance compares with."""


@dataclass(frozen=True)
class Condition:
    """A batch of conditions, one for each image: a label, a map, a text, or several of them.

    Attributes:
        label: Class labels, int64 ``(B,)``; ``UNCONDITIONED`` (-1) for an image without one.
        spatial: Features of every site, float ``(B, D, H, W)``; zeros for an image without any.
        text: A text for each image; an empty one for an image without any.

    Raises:
        InputError: None is given, or they are of different batch sizes.

    Example:
        >>> import torch
        >>> from rasterwise import Condition
        >>> both = Condition(torch.tensor([3, 7])).with_unconditioned()
        >>> both.label
        tensor([ 3,  7, -1, -1])
    """

    label: Tensor | None = None
    spatial: Tensor | None = None
    text: TextBatch | None = None

    def __post_init__(self) -> None:
        parts = {"labels": self.label, "spatial maps": self.spatial, "texts": self.text}
        lengths = {name: len(part) for name, part in parts.items() if part is not None}
        if not lengths:
            raise InputError(
                "a condition needs a label or a spatial map or a text; give None where there is none"
            )
        if len(set(lengths.values())) > 1:
            found = " but ".join(f"{length} {name}" for name, length in lengths.items())
            raise InputError(f"{found}; expected as many of each")

    def __len__(self) -> int:
        return len(next(part for part in (self.label, self.spatial, self.text) if part is not None))

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        return Condition(
            None if self.label is None else self.label[rows],
            None if self.spatial is None else self.spatial[rows],
            None if self.text is None else self.text[rows],
        )

    def to(self, device: torch.device | str) -> Condition:
        return Condition(
            None if self.label is None else self.label.to(device),
            None if self.spatial is None else self.spatial.to(device),
            None if self.text is None else self.text.to(device),
        )

    def with_unconditioned(self) -> Condition:
        """This batch followed by as many images without a condition."""
        label, spatial, text = self.label, self.spatial, self.text
        return Condition(
            None if label is None else torch.cat([label, torch.full_like(label, UNCONDITIONED)]),
            None if spatial is None else torch.cat([spatial, torch.zeros_like(spatial)]),
            None if text is None else text.with_unconditioned(),
        )
