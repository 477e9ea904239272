"""Cached decoding of PixelCNN in raster order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixel_baselines.decoding.head import HeadDecoder
from pixel_baselines.decoding.rows import RowDecoder, row_windows, scroll, site_matrices
from pixel_baselines.layers.channel_masks import channel_groups
from pixel_baselines.pixelcnn.network import PixelCNNNetwork
from rasterwise.symbols.condition import Condition


class PixelCNNDecoder(RowDecoder):
    """Decodes a PixelCNN: a symbol takes six small operations a block, three of them matrix products.

    For each block the input of its k×k convolution is kept, in the current row and the k // 2 rows above. What
    those rows contribute to the current row is computed when it begins, by one batched product over all blocks.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: PixelCNNNetwork, batch_size: int, condition: Condition | None) -> None:
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
        self.head = HeadDecoder(*model.head.layers, self.stream, grid.channels)
        self.row_steps = self._views(model)

    def _views(self, model: PixelCNNNetwork) -> list[tuple[Any, ...]]:
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
        channel, (above_inputs, inputs, matrix, stream), blocks = self.row_steps[step]
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
