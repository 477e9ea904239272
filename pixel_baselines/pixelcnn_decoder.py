"""Walking a network of masked convolutions: a row at once what rows above give, the rest a symbol at a time."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pixel_baselines.channel_masks import MaskType, channel_groups
from pixel_baselines.head_walk import HeadWalk
from pixel_baselines.masked_conv import CausalConv2d, SymbolEmbedding
from rasterwise.autoregressive import Decoder
from rasterwise.condition import Condition
from rasterwise.grid import Grid
from rasterwise.walk import Stretch

if TYPE_CHECKING:
    from pixel_baselines.pixelcnn import PixelCNN


class RowDecoder(Decoder):
    """A walk that keeps the embedded symbols of the current row and of those that the first layer reaches.

    A subclass computes in ``_begin_row`` all that depends on the rows above alone, for the whole row, and
    in ``_step`` what one symbol adds. Every tensor that a step touches is a view of a buffer that stays
    where it is, made once: a step is nothing but the arithmetic, and the same in every row.

    Args:
        grid: The grid that is walked.
        batch_size: B.
        embedding: Of the symbols.
        reach: How many rows up and columns sideways the first layer reaches.
        like: A weight of the model, for its dtype and device.
    """

    def __init__(
        self, grid: Grid, batch_size: int, embedding: SymbolEmbedding, reach: int, like: Tensor
    ) -> None:
        super().__init__(grid, batch_size)
        self.row_size = grid.width * grid.channels
        self.table = embedding.table(like.dtype, like.device)
        features = embedding.features
        self.inputs = like.new_zeros(batch_size, reach + 1, grid.width + 2 * reach, features)
        own_row = self.inputs[:, -1, reach : reach + grid.width].unflatten(2, (grid.channels, -1))
        self.slots = [
            own_row[:, column, channel] for column in range(grid.width) for channel in range(grid.channels)
        ]
        self.next_logits: Tensor | None = None

    def for_replay(self) -> list[Stretch]:
        return [Stretch(period=self.row_size, repeats=self.grid.height)]

    @torch.no_grad()
    def _logits(self) -> Tensor:
        if self.next_logits is None:
            step = self.index % self.row_size
            if step == 0:
                self._begin_row()
            self.next_logits = self._step(step)
        return self.next_logits

    @torch.no_grad()
    def _push(self, symbols: Tensor) -> None:
        self._logits()  # later sites need this one's activations, also where nobody asked for its logits
        self.next_logits = None
        step = self.index % self.row_size
        self.slots[step].copy_(self.table[symbols])
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


class PixelCNNDecoder(RowDecoder):
    """PixelCNN a symbol at a time: six small operations a block, three of them matrix products.

    Kept a block: the input of its k×k convolution in the current row and the k // 2 rows above. What those
    rows above give to the current row is one batched matrix product over all blocks.
    """

    @torch.no_grad()
    def __init__(self, model: PixelCNN, batch_size: int, condition: Condition | None) -> None:
        config, grid = model.config, model.grid
        self.reach, self.input_reach = config.kernel // 2, config.input_kernel // 2
        super().__init__(grid, batch_size, model.embedding, self.input_reach, model.input.weight)
        classes = model.class_index(condition, batch_size)
        self.input_above_matrix = model.input.row_matrix(self.input_reach).contiguous()
        self.input_bias = model.input.offset
        if model.label_bias is not None:
            self.input_bias = model.input.offset + model.label_bias(classes)[:, None]
        self.above_matrices = torch.stack([block.conv.row_matrix(self.reach) for block in model.blocks])
        self.above_bias = torch.stack([block.conv.offset for block in model.blocks])[:, None]

        width, half, new = config.width, config.width // 2, model.input.weight.new_zeros
        self.rows = new(config.blocks, batch_size, self.reach + 1, grid.width + 2 * self.reach, half)
        self.above = new(config.blocks, batch_size, grid.width, half)
        self.input_above = new(batch_size, grid.width, width)
        self.stream = new(batch_size, width)
        self.actives = new(config.blocks, batch_size, width)
        self.hiddens = new(config.blocks, batch_size, half)
        self.head = HeadWalk(*model.head.layers, self.stream, grid.channels)
        self.steps = self._views(model)

    def _views(self, model: PixelCNN) -> list[tuple[Any, ...]]:
        """For every step of a row, the views that it reads and writes and the weights between them."""
        channels, reach = self.grid.channels, self.reach
        half, features = self.rows.shape[-1], self.inputs.shape[-1]
        wide_groups = channel_groups(self.stream.shape[1], channels)
        half_groups = channel_groups(half, channels)
        own_inputs, own_rows = self.inputs[:, -1].flatten(1), self.rows[:, :, -1].flatten(2)
        input_matrices = site_matrices(model.input, "A", channels)
        matrices = [
            (
                site_matrices(block.down, "B", channels),
                site_matrices(block.conv, "B", channels),
                site_matrices(block.up, "B", channels),
            )
            for block in model.blocks
        ]
        steps = []
        for column in range(self.grid.width):
            for channel, (wide, narrow) in enumerate(zip(wide_groups, half_groups, strict=True)):
                matrix = input_matrices[channel]
                window = own_inputs[:, column * features :][:, : len(matrix)]
                first = (self.input_above[:, column, wide], window, matrix, self.stream[:, wide])
                site = (column + reach) * half
                blocks = [
                    (
                        self.actives[index, :, wide],
                        block.down.offset[narrow],
                        self.actives[index, :, : wide.stop],
                        down[channel],
                        own_rows[index, :, site + narrow.start : site + narrow.stop],
                        self.above[index, :, column, narrow],
                        own_rows[index, :, column * half : site + narrow.stop],
                        conv[channel],
                        self.hiddens[index, :, narrow],
                        self.hiddens[index, :, : narrow.stop],
                        up[channel],
                    )
                    for index, (block, (down, conv, up)) in enumerate(
                        zip(model.blocks, matrices, strict=True)
                    )
                ]
                steps.append((channel, first, blocks))
        return steps

    def _begin_row(self) -> None:
        windows = row_windows(self.inputs[:, :-1], self.input_reach)
        torch.add(windows @ self.input_above_matrix, self.input_bias, out=self.input_above)
        windows = row_windows(self.rows[:, :, :-1], self.reach).flatten(1, 2)
        torch.baddbmm(self.above_bias, windows, self.above_matrices, out=self.above.flatten(1, 2))

    def _step(self, step: int) -> Tensor:
        channel, (above_inputs, inputs, matrix, stream), blocks = self.steps[step]
        torch.addmm(above_inputs, inputs, matrix, out=stream)
        for active, bias, seen, down, feature, above, window, conv, hidden, hidden_seen, up in blocks:
            torch.clamp_min(stream, 0, out=active)
            torch.addmm(bias, seen, down, out=feature)
            feature.relu_()
            torch.addmm(above, window, conv, out=hidden)
            hidden.relu_()
            stream.addmm_(hidden_seen, up)
        return self.head.logits(channel)

    def _end_row(self) -> None:
        super()._end_row()
        scroll(self.rows)
