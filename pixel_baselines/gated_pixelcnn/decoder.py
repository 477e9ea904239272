"""Cached decoding of Gated PixelCNN: the vertical stack by rows, the horizontal stack by symbols."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pixel_baselines.decoding.head import HeadDecoder
from pixel_baselines.decoding.rows import RowDecoder, row_windows, scroll, site_matrices
from pixel_baselines.gated_pixelcnn.network import GatedPixelCNNNetwork
from pixel_baselines.layers.channel_masks import channel_groups
from rasterwise.symbols.condition import Condition


def negated_gate(squashed: Tensor, out: Tensor) -> None:
    """−tanh(a) · σ(b) from σ(2a) and σ(b), side by side in ``squashed`` ``(..., 2p)``, into ``out`` ``(..., p)``.

    tanh(a) = 2σ(2a) − 1 makes the gate one sigmoid and one multiply-add; the weights around it carry the 2
    and the sign, which floating point keeps exactly.
    """
    doubled, b = squashed.chunk(2, -1)
    torch.addcmul(b, doubled, b, value=-2, out=out)


class GatedPixelCNNDecoder(RowDecoder):
    """Decodes a Gated PixelCNN: a symbol takes four small operations a layer, two of them matrix products.

    For each layer the vertical stack's features are kept in the current row and the k // 2 rows above, and the
    horizontal stack's features in the current row. When a row begins, the vertical stack goes one row down, and
    all that it and the conditions contribute to the horizontal stack's sums is computed for the whole row. A
    symbol then adds what its row so far contributes, in its own group of features alone.

    Inside, sums come as (2a, b) and gated features with their sign reversed, see ``negated_gate``; the
    horizontal sums are ordered by group, so that a symbol's are one slice.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: GatedPixelCNNNetwork, batch_size: int, condition: Condition | None) -> None:
        config, grid = model.config, model.grid
        self.reach, self.input_reach = config.kernel // 2, config.input_kernel // 2
        like = model.head.output.weight
        super().__init__(grid, batch_size, model.embedding, self.input_reach, like)
        depth, width, columns = config.depth, config.width, grid.width
        self.twice = torch.cat([like.new_full((width,), 2), like.new_ones(width)])
        in_group = torch.arange(2 * width).unflatten(0, (2, width))
        groups = channel_groups(width, grid.channels)
        self.order = torch.cat([in_group[:, group].flatten() for group in groups]).to(like.device)

        vertical_rows = [self.input_reach] + [self.reach + 1] * (depth - 1)
        # All but the first layer read gated features, whose sign is reversed.
        self.vertical = [
            layer.vertical.row_matrix(rows) * (-self.twice if index else self.twice)
            for index, (layer, rows) in enumerate(zip(model.layers, vertical_rows, strict=True))
        ]
        links = torch.stack([layer.link.weight[:, :, 0, 0].T for layer in model.layers])
        self.links = ((links / self.twice[:, None]) * self.twice)[:, :, self.order]
        self._set_biases(model, batch_size, condition)

        new = like.new_zeros
        self.rows = new(depth - 1, batch_size, self.reach + 1, columns + 2 * self.reach, width)
        own = self.rows[:, :, -1, self.reach : self.reach + columns]
        self.sources = [self.inputs[:, :-1], *self.rows]
        self.targets = list(own)
        self.sums = new(depth, batch_size, columns, 2 * width)
        self.from_above = new(depth, batch_size, columns, 2 * width)
        self.across = new(depth - 1, batch_size, columns + self.reach, width)
        self.stream = new(batch_size, width)
        self.gated = new(depth, batch_size, width)
        self.head = HeadDecoder(*model.head.layers, self.stream, model.grid.channels)
        self.row_steps = self._views(model)

    def _set_biases(self, model: GatedPixelCNNNetwork, batch_size: int, condition: Condition | None) -> None:
        """Compute what the conditions and the biases add to the sums, ``(B or 1, 1 or W, depth, 2, 2p)``."""
        offsets = [torch.stack([layer.vertical.offset, layer.horizontal.offset]) for layer in model.layers]
        biases = torch.stack(offsets)[None]
        label_biases = model.gate_biases(condition, batch_size)
        if label_biases is not None:
            biases = biases + label_biases
        self.biases = (biases * self.twice)[:, None]
        spatial = model.spatial_map(condition, batch_size)
        self.spatial_rows = None if spatial is None else spatial.permute(2, 0, 3, 1).contiguous()
        if spatial is not None:
            maps = [layer.spatial.weight[:, :, 0, 0] for layer in model.layers if layer.spatial is not None]
            weights = torch.stack(maps).unflatten(1, (2, -1)) * self.twice[:, None]
            self.spatial_matrix = weights.flatten(0, 2).T.contiguous()
            self.next_row = torch.zeros(1, dtype=torch.int64, device=spatial.device)

    def _views(self, model: GatedPixelCNNNetwork) -> list[tuple[Any, ...]]:
        """For every step of a row, the views that it reads and writes and the weights between them."""
        channels, depth, reach = self.grid.channels, len(model.layers), self.reach
        width = self.stream.shape[1]
        groups = channel_groups(width, channels)
        rows = [self.inputs[:, -1].flatten(1), *self.across.flatten(2)]
        features = [self.inputs.shape[-1]] + [width] * (depth - 1)
        twice = self.twice[self.order]
        horizontals = [
            [
                matrix * twice[2 * group.start : 2 * group.stop]
                for matrix, group in zip(
                    site_matrices(layer.horizontal, "B" if index else "A", channels, gates=2),
                    groups,
                    strict=True,
                )
            ]
            for index, layer in enumerate(model.layers)
        ]
        outputs = [[-matrix for matrix in site_matrices(x.output, "B", channels)] for x in model.layers]
        sums = [self.stream.new_zeros(len(self.stream), 2 * (g.stop - g.start)) for g in groups]
        nothing = torch.zeros_like(self.stream)
        steps = []
        for column in range(self.grid.width):
            slots = [row[:, (column + reach) * width : (column + reach + 1) * width] for row in rows[1:]]
            slots.append(self.stream)
            for channel, group in enumerate(groups):
                layers = []
                for index in range(depth):
                    matrix = horizontals[index][channel]
                    shortcut = slots[index - 1] if index else nothing
                    layers.append(
                        (
                            self.from_above[index, :, column, 2 * group.start : 2 * group.stop],
                            rows[index][:, column * features[index] :][:, : len(matrix)],
                            matrix,
                            self.gated[index, :, group],
                            shortcut[:, group],
                            self.gated[index, :, : group.stop],
                            outputs[index][channel],
                            slots[index][:, group],
                        )
                    )
                steps.append((channel, sums[channel], *sums[channel].chunk(2, 1), layers))
        return steps

    def _begin_row(self) -> None:
        biases = self.biases
        if self.spatial_rows is not None:
            from_map = self.spatial_rows.index_select(0, self.next_row)[0] @ self.spatial_matrix
            self.next_row.add_(1)
            biases = biases + from_map.unflatten(-1, biases.shape[2:])
        reach = self.input_reach
        for index, (source, matrix, sums) in enumerate(
            zip(self.sources, self.vertical, self.sums, strict=True)
        ):
            torch.add(row_windows(source, reach) @ matrix, biases[:, :, index, 0], out=sums)
            if index < len(self.targets):
                negated_gate(sums.sigmoid(), self.targets[index])
            reach = self.reach
        self.from_above.copy_(biases[:, :, :, 1, self.order].movedim(2, 0))
        self.from_above.flatten(1, 2).baddbmm_(self.sums.flatten(1, 2), self.links)

    def _step(self, step: int) -> Tensor:
        channel, sums, doubled, b, layers = self.row_steps[step]
        for from_above, window, matrix, gated, shortcut, seen, output, slot in layers:
            torch.addmm(from_above, window, matrix, out=sums)
            sums.sigmoid_()
            torch.addcmul(b, doubled, b, value=-2, out=gated)
            torch.addmm(shortcut, seen, output, out=slot)
        return self.head.logits(channel)

    def _end_row(self) -> None:
        super()._end_row()
        scroll(self.rows)
