"""What images are conditioned on: labels and maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rasterwise.errors import InputError

UNCONDITIONED = -1
"""The label of an image without a condition, which label dropout trains and guidance compares with."""


@dataclass(frozen=True)
class Condition:
    """A batch of conditions, one for each image: a label, a map, or both.

    Attributes:
        label: Class labels, int64 ``(B,)``; ``UNCONDITIONED`` (-1) for an image without one.
        spatial: Features of every site, float ``(B, D, H, W)``; zeros for an image without any.

    Raises:
        InputError: Neither is given, or they are of different batch sizes.

    Example:
        >>> import torch
        >>> from rasterwise import Condition
        >>> both = Condition(torch.tensor([3, 7])).with_unconditioned()
        >>> both.label
        tensor([ 3,  7, -1, -1])
    """

    label: Tensor | None = None
    spatial: Tensor | None = None

    def __post_init__(self) -> None:
        if self.label is None and self.spatial is None:
            raise InputError("a condition needs a label or a spatial map; give None where there is neither")
        if self.label is not None and self.spatial is not None and len(self.label) != len(self.spatial):
            raise InputError(f"{len(self.label)} labels but {len(self.spatial)} spatial maps")

    def __len__(self) -> int:
        return len(next(tensor for tensor in (self.label, self.spatial) if tensor is not None))

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        return Condition(
            None if self.label is None else self.label[rows],
            None if self.spatial is None else self.spatial[rows],
        )

    def to(self, device: torch.device | str) -> Condition:
        return Condition(
            None if self.label is None else self.label.to(device),
            None if self.spatial is None else self.spatial.to(device),
        )

    def with_unconditioned(self) -> Condition:
        """This batch followed by as many images without a condition."""
        label, spatial = self.label, self.spatial
        return Condition(
            None if label is None else torch.cat([label, torch.full_like(label, UNCONDITIONED)]),
            None if spatial is None else torch.cat([spatial, torch.zeros_like(spatial)]),
        )
