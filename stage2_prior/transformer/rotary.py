"""Rotary positions on a grid: by the row, the column and the channel of a symbol."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rasterwise.symbols.documents.grammar import Positions
from rasterwise.symbols.grid import Grid

BASE = 100.0
"""Grids have tens of rows where texts have thousands of words: shorter wavelengths than a text's 10,000."""


class GridRotaryEmbedding(nn.Module):
    """Cosines and sines in place of Llama's one-dimensional ones.

    The pairs of a head are divided among the axes of the grid that are longer than 1. The angle of a pair is the
    coordinate on its axis times a frequency.

    Args:
        grid: The grid; positions 0 … N − 1 are its symbols in raster order.
        head_width: Width of an attention head, even.

    References:
        Su et al., RoFormer, 2021 (arXiv 2104.09864); over two axes as in Sun et al., Autoregressive Model
        Beats Diffusion: Llama for Scalable Image Generation, 2024 (arXiv 2406.06525).
    """

    def __init__(self, grid: Grid, head_width: int) -> None:
        super().__init__()
        pairs = head_width // 2
        sites = torch.tensor([grid.site(index) for index in range(grid.size)], dtype=torch.float64)
        lengths = (grid.height, grid.width, grid.channels)
        axes = [axis for axis, length in enumerate(lengths) if length > 1] or [0]
        angles = []
        for index, axis in enumerate(axes):
            count = pairs // len(axes) + (index < pairs % len(axes))
            frequencies = BASE ** -(torch.arange(count, dtype=torch.float64) / count)
            angles.append(sites[:, axis, None] * frequencies)
        # No buffer: a model cast to a half precision would take its angles with it.
        self.angles = torch.cat(angles, 1).repeat(1, 2)

    @property
    def pair_angles(self) -> Tensor:
        """The angle of each pair, float64 ``(N, head width / 2)``."""
        return self.angles[:, : self.angles.shape[1] // 2]

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``(1 or B, T, head_width)`` in x's dtype; positions int64 ``(1 or B, T)``."""
        self.angles = self.angles.to(x.device)
        angles = self.angles[position_ids]
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


SEQUENCE_BASE = 10_000.0
"""Of places in a sequence, as of Llama's."""


class SequenceRotary(nn.Module):
    """Rotary positions of ids of documents: the place in the sequence, and a code's row, column and channel beside.

    The pairs of a head are divided among the sequence and those axes of the grid that are longer than 1.

    Args:
        grid: Of an image's codes.
        head_width: Width of an attention head, even.
    """

    def __init__(self, grid: Grid, head_width: int) -> None:
        super().__init__()
        lengths = (grid.height, grid.width, grid.channels)
        axes = [0, *(axis for axis, length in enumerate(lengths, 1) if length > 1)]
        pairs = head_width // 2
        # No buffer: a model cast to a half precision would take its angles with it.
        self.frequencies = torch.zeros(4, pairs, dtype=torch.float64)
        start = 0
        for index, axis in enumerate(axes):
            count = pairs // len(axes) + (index < pairs % len(axes))
            base = BASE if axis else SEQUENCE_BASE
            powers = -torch.arange(count, dtype=torch.float64) / max(count, 1)
            self.frequencies[axis, start : start + count] = base**powers
            start += count

    @torch.no_grad()
    def pair_angles(self, positions: Positions) -> Tensor:
        """The angle of each pair, float64 ``(..., head width / 2)``, of positions ``(...)``."""
        self.frequencies = self.frequencies.to(positions.sequence.device)
        sequence, *site = positions
        places = torch.stack([sequence, *(axis + 1 for axis in site)], -1)
        return places.double() @ self.frequencies

    @torch.no_grad()
    def forward(self, x: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``(1 or B, T, head_width)`` in x's dtype, of positions ``(1 or B, T)``."""
        angles = self.pair_angles(positions)
        angles = torch.cat([angles, angles], -1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)
