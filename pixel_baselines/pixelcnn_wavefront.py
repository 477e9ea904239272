"""PixelCNN a front at a time: its blind spot lets a row be drawn while the one above it is unfinished."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pixel_baselines.channel_masks import channel_groups
from pixel_baselines.pixelcnn_decoder import HeadWalk, site_matrices
from rasterwise.condition import Condition
from rasterwise.wavefront import Front, WavefrontDecoder

if TYPE_CHECKING:
    from pixel_baselines.pixelcnn import PixelCNN


class PixelCNNWavefront(WavefrontDecoder):
    """PixelCNN on a diagonal of sites, in products as high as the diagonal is long.

    The row just above a site is hidden from it beyond p = ``input_kernel // 2`` columns to the right, and the
    rows above that one as far beyond as they are ahead: p + 1 columns behind the row above it (q + 1 where q =
    ``kernel // 2`` is more) a row has all that it ever sees of it. A W×H grid takes W + (p + 1)(H − 1) fronts
    in place of W·H sites, and the pictures are those of raster order.

    Kept are the embedded symbols of the whole grid and, a block, the inputs of its k×k convolution at the last
    times that one still reaches. At a time they lie row by row, so that a tap of the convolution, whichever
    way it points, is a view of those at one time.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are walked at once.
        condition: What they are told.
    """

    @torch.no_grad()
    def __init__(self, model: PixelCNN, batch_size: int, condition: Condition | None) -> None:
        config, grid, like = model.config, model.grid, model.input.weight
        p, q = config.input_kernel // 2, config.kernel // 2
        lag = min(max(p, q) + 1, grid.width)
        super().__init__(grid, batch_size, lag, like.device)
        self.reach, self.input_reach = q, p
        classes = model.class_index(condition, batch_size)
        most = max(front.rows.stop - front.rows.start for front in self.fronts)
        width, half, new = config.width, config.width // 2, like.new_zeros

        self.table = model.embedding.table(like.dtype, like.device)
        self.inputs = new(grid.height + p, batch_size, grid.width + 2 * p, model.embedding.features)
        bias = model.input.offset.expand(batch_size, -1)
        if model.label_bias is not None:
            bias = bias + model.label_bias(classes)
        self.input_bias = bias.repeat(most, 1)
        self.input_matrix = model.input.row_matrix(p + 1).contiguous()

        # Every tap but the site's own is known before a front begins: a product for all blocks at once. A tap that
        # points to a later time points beyond the right edge, where there are zeros.
        self.taps = [(up, across) for up in range(q + 1) for across in range(-q, q + 1) if across < lag * up]
        weights = torch.stack([block.conv.masked_weight for block in model.blocks])
        self.tap_matrices = [
            weights[:, :, :, q - up, q + across].transpose(1, 2).contiguous() for up, across in self.taps
        ]
        self.tap_bias = torch.stack([block.conv.offset for block in model.blocks])[:, None]
        self.depth = 1 + max(lag * up - across for up, across in self.taps)
        self.features = new(config.blocks, self.depth, grid.height + q, batch_size, half)

        self.groups = list(
            zip(channel_groups(width, grid.channels), channel_groups(half, grid.channels), strict=True)
        )
        self.blocks = []
        for block in model.blocks:
            own = block.conv.left * half  # the taps left of the site are among those above
            site = [matrix[own:] for matrix in site_matrices(block.conv, "B", grid.channels)]
            down, up = (site_matrices(conv, "B", grid.channels) for conv in (block.down, block.up))
            self.blocks.append((block.down.offset, down, site, up))
        self.known = new(config.blocks, most * batch_size, half)
        self.stream = new(most * batch_size, width)
        self.actives = new(config.blocks, most * batch_size, width)
        self.hiddens = new(config.blocks, most * batch_size, half)
        self.head = HeadWalk(model.head, self.stream)
        self.next_logits: Tensor | None = None

    @torch.no_grad()
    def _logits(self, front: Front) -> Tensor:
        if self.next_logits is None:
            if front.channel == 0:
                self._begin(front)
            self.next_logits = self._step(front)
        return self.next_logits

    @torch.no_grad()
    def _advance(self, front: Front, symbols: Tensor) -> None:
        self._logits(front)
        self.next_logits = None
        windows = self._windows(front)
        embedding = self.table.shape[1]
        own = slice(front.channel * embedding, (front.channel + 1) * embedding)
        windows[:, :, self.input_reach, self.input_reach, own] = self.table[symbols.T]

    def _windows(self, front: Front) -> Tensor:
        """The windows of the first layer at a front's sites: a view ``(T, B, p + 1, 2p + 1, F)`` of the inputs."""
        p, rows = self.input_reach, front.rows
        down, across, right, feature = self.inputs.stride()
        column = front.time - self.lag * rows.start
        return self.inputs.as_strided(
            (rows.stop - rows.start, self.batch_size, p + 1, 2 * p + 1, self.inputs.shape[-1]),
            (down - self.lag * right, across, down, right, feature),
            rows.start * down + column * right,
        )

    def _begin(self, front: Front) -> None:
        """What is known before a front's first symbol, for all blocks; and room for what it will leave."""
        rows, count = front.rows, (front.rows.stop - front.rows.start) * self.batch_size
        known = self.known[:, :count]
        known.copy_(self.tap_bias.expand_as(known))
        for (up, across), matrices in zip(self.taps, self.tap_matrices, strict=True):
            seen = self.features[:, (front.time + across - self.lag * up) % self.depth]
            above = slice(self.reach - up + rows.start, self.reach - up + rows.stop)
            known.baddbmm_(seen[:, above].flatten(1, 2), matrices)
        # Rows that have ended since then are zeros to those below, as everything beyond the edges is.
        ended = slice(max(0, rows.start - -(-self.depth // self.lag)) + self.reach, rows.start + self.reach)
        self.features[:, front.time % self.depth, ended].zero_()

    def _step(self, front: Front) -> Tensor:
        rows, count = front.rows, (front.rows.stop - front.rows.start) * self.batch_size
        wide, narrow = self.groups[front.channel]
        stream = self.stream[:count]
        windows = self._windows(front).reshape(count, -1)
        torch.addmm(self.input_bias[:count, wide], windows, self.input_matrix[:, wide], out=stream[:, wide])
        here = self.features[:, front.time % self.depth, self.reach + rows.start : self.reach + rows.stop]
        for block, (bias, down, site, up) in enumerate(self.blocks):
            active, feature = self.actives[block, :count], here[block].flatten(0, 1)
            torch.clamp_min(stream[:, wide], 0, out=active[:, wide])
            torch.addmm(
                bias[narrow], active[:, : wide.stop], down[front.channel], out=feature[:, narrow]
            ).relu_()
            hidden = self.hiddens[block, :count]
            torch.addmm(
                self.known[block, :count, narrow],
                feature[:, : narrow.stop],
                site[front.channel],
                out=hidden[:, narrow],
            ).relu_()
            stream[:, wide].addmm_(hidden[:, : narrow.stop], up[front.channel])
        logits = self.head.logits(front.channel, count)
        return logits.unflatten(0, (-1, self.batch_size)).transpose(0, 1).contiguous()
