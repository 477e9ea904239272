"""DALL-E's sparse attention: which positions of an image a position attends to, layer by layer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rasterwise.symbols.grid import Grid

Kind = Literal["row", "column", "convolution"]


def kinds(depth: int) -> list[Kind]:
    """The kind of each layer: column attention in the second of every four layers, else row; convolution in the last.

    Example:
        >>> kinds(4)
        ['row', 'column', 'row', 'convolution']
    """
    found: list[Kind] = ["column" if index % 4 == 1 else "row" for index in range(depth)]
    return [*found[:-1], "convolution"]


def attended(kind: Kind, grid: Grid, text: int, kernel: int) -> Tensor:
    """Which positions each position of text and image attends to.

    All attend to no later one, and to the text. Distances within an image are counted in raster order, so that rows
    go on into each other: row attention reaches back to the position right above; column attention to all that are
    above; convolution to those in a square around it. Several channels count as so many columns.

    Args:
        kind: Which.
        grid: Of the image; the last of its symbols has no position.
        text: Positions before the image's.
        kernel: Side of the square of a convolution, odd.

    Returns:
        bool ``(S, S)`` with ``S = text + N - 1``, True where the row's position attends to the column's.

    References:
        Ramesh et al., Zero-Shot Text-to-Image Generation, 2021 (arXiv 2102.12092), figure 11.
    """
    place = torch.arange(text + grid.size - 1)
    distance, of_image = place[:, None] - place, place >= text
    across = grid.width * grid.channels
    if kind == "row":
        near = distance <= across
    elif kind == "column":
        near = distance % across == 0
    else:
        half = kernel // 2
        near = torch.zeros_like(distance, dtype=torch.bool)
        for rows in range(half + 1):
            near |= (distance - rows * across).abs() <= half
    return (distance >= 0) & (near | ~of_image[:, None] | ~of_image)
