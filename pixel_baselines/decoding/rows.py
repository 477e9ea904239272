"""Cached decoding of masked convolutions, a row at a time."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from pixel_baselines.layers.channel_masks import MaskType, channel_groups
from pixel_baselines.layers.masked_conv import CausalConv2d
from pixel_baselines.layers.symbols import SymbolEmbedding
from rasterwise.decoding.decoder import CaptureRegion, Decoder
from rasterwise.symbols.grid import Grid
from rasterwise.symbols.order import raster_order


class RowDecoder(Decoder):
    """Decodes in raster order, keeping the embedded symbols of the rows that the first layer reaches.

    A subclass computes in ``_begin_row`` all that depends on the rows above alone, for the whole row, and
    in ``_step`` what one symbol adds. Every tensor that a step touches is a view of a buffer that stays
    where it is, made once: a step is nothing but the arithmetic, and the same in every row.

    Args:
        grid: The grid that is decoded.
        batch_size: B.
        embedding: Of the symbols.
        reach: How many rows up and columns sideways the first layer reaches.
        like: A weight of the model, for its dtype and device.
    """

    def __init__(
        self, grid: Grid, batch_size: int, embedding: SymbolEmbedding, reach: int, like: Tensor
    ) -> None:
        super().__init__(grid, batch_size, raster_order(grid, like.device))
        self.row_size = grid.width * grid.channels
        self.table = embedding.table(like.dtype, like.device)
        features = embedding.features
        self.inputs = like.new_zeros(batch_size, reach + 1, grid.width + 2 * reach, features)
        own_row = self.inputs[:, -1, reach : reach + grid.width].unflatten(2, (grid.channels, -1))
        self.slots = [
            own_row[:, column, channel] for column in range(grid.width) for channel in range(grid.channels)
        ]

    def capture_regions(self) -> list[CaptureRegion]:
        return [CaptureRegion(period=self.row_size, repeats=self.grid.height)]

    def _logits(self) -> Tensor:
        step = self.index % self.row_size
        if step == 0:
            self._begin_row()
        return self._step(step)[:, None]

    def _advance(self, symbols: Tensor) -> None:
        step = self.index % self.row_size
        self.slots[step].copy_(self.table.index_select(0, symbols[:, 0]))
        if step == self.row_size - 1:
            self._end_row()

    @abstractmethod
    def _begin_row(self) -> None: ...

    @abstractmethod
    def _step(self, step: int) -> Tensor:
        """Logits ``(B, K)`` of the symbol at ``step`` in the row."""

    def _end_row(self) -> None:
        scroll(self.inputs)


def scroll(rows: Tensor) -> None:
    """Move kept rows ``(..., rows, columns, features)`` up by one; the last one is to be overwritten."""
    rows[..., :-1, :, :] = rows[..., 1:, :, :].clone()


def row_windows(rows: Tensor, reach: int) -> Tensor:
    """The windows of all sites of a row: ``(..., n, W + 2 · reach, F)`` to ``(..., W, n · k · F)``."""
    windows = rows.unfold(-2, 2 * reach + 1, 1)  # (..., n, W, F, k)
    return windows.movedim(-1, -2).movedim(-4, -3).flatten(-3)


def site_matrices(conv: CausalConv2d, mask_type: MaskType, channels: int, gates: int = 1) -> list[Tensor]:
    """For each symbol of a site, the weights from all that it may see in its row to its own outputs.

    Args:
        conv: Whose taps up to the site are taken.
        mask_type: Of the convolution.
        channels: Symbols a site.
        gates: How many sets of grouped outputs the convolution has.

    Returns:
        A matrix ``(left · inputs + visible, gates · group)`` a symbol: a site's row of features, cut behind
        the features at the site itself that the mask lets through, times it.
    """
    matrix = conv.site_matrix()
    outputs, inputs = conv.weight.shape[:2]
    matrices = []
    for seen, group in zip(
        channel_groups(inputs, channels), channel_groups(outputs // gates, channels), strict=True
    ):
        rows = conv.left * inputs + (seen.start if mask_type == "A" else seen.stop)
        sets = matrix[:rows].unflatten(1, (gates, outputs // gates))[:, :, group]
        matrices.append(sets.flatten(1).contiguous())
    return matrices
