"""PixelCNN a front at a time: its blind spot lets a row be drawn while the one above it is unfinished."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pixel_baselines.channel_masks import channel_groups
from pixel_baselines.head_walk import HeadWalk
from pixel_baselines.masked_wavefront import FrontFeatures, MaskedInputWavefront, Tap
from pixel_baselines.pixelcnn_decoder import site_matrices
from rasterwise.condition import Condition
from rasterwise.wavefront import Front

if TYPE_CHECKING:
    from pixel_baselines.pixelcnn import PixelCNN


class PixelCNNWavefront(MaskedInputWavefront):
    """PixelCNN on a diagonal of sites, in products as high as the diagonal is long.

    The row just above a site is hidden from it beyond p = ``input_kernel // 2`` columns to the right, and the
    rows above that one as far beyond as they are ahead: p + 1 columns behind the row above it (q + 1 where q =
    ``kernel // 2`` is more) a row has all that it ever sees of it. A W×H grid takes W + (p + 1)(H − 1) fronts
    in place of W·H sites, and the pictures are those of raster order.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are walked at once.
        condition: What they are told.
    """

    @torch.no_grad()
    def __init__(self, model: PixelCNN, batch_size: int, condition: Condition | None) -> None:
        config, grid, q = model.config, model.grid, model.config.kernel // 2
        classes = model.class_index(condition, batch_size)
        bias = model.input.offset.expand(batch_size, -1)
        if model.label_bias is not None:
            bias = bias + model.label_bias(classes)
        super().__init__(grid, batch_size, model.embedding, model.input, bias, reach=q)
        width, half, new = config.width, config.width // 2, model.input.weight.new_zeros
        # Every tap but the site's own is known before a front begins: a product for all blocks at once. A tap that
        # points to a later time points beyond the right edge, where there are zeros.
        taps = [Tap(up, across) for up in range(q + 1) for across in range(-q, q + 1)]
        taps = [tap for tap in taps if tap.across < self.lag * tap.up]
        weights = torch.stack([block.conv.masked_weight for block in model.blocks])
        self.tap_matrices = {
            tap: weights[:, :, :, q - tap.up, q + tap.across].transpose(1, 2).contiguous() for tap in taps
        }
        self.conv_bias = torch.stack([block.conv.offset for block in model.blocks])[:, None]
        self.features = FrontFeatures(model.input.weight, config.blocks, half, self, taps)

        wide_groups, narrow_groups = (channel_groups(count, grid.channels) for count in (width, half))
        self.groups = list(zip(wide_groups, narrow_groups, strict=True))
        self.blocks = []
        for block in model.blocks:
            own = block.conv.left * half  # the taps left of the site are among those above
            site = [matrix[own:] for matrix in site_matrices(block.conv, "B", grid.channels)]
            down, up = (site_matrices(conv, "B", grid.channels) for conv in (block.down, block.up))
            self.blocks.append((block.down.offset, down, site, up))
        self.known = new(config.blocks, self.most, half)
        self.stream = new(self.most, width)
        self.actives = new(config.blocks, self.most, width)
        self.hiddens = new(config.blocks, self.most, half)
        self.head = HeadWalk(*model.head.layers, self.stream, grid.channels)

    def _begin(self, front: Front) -> None:
        known = self.known[:, : self.count(front)]
        known.copy_(self.conv_bias.expand_as(known))
        self.features.add_to(known, front, self.tap_matrices)
        self.features.begin(front)

    def _step(self, front: Front) -> Tensor:
        count, channel = self.count(front), front.channel
        wide, narrow = self.groups[channel]
        stream, here = self.stream[:count], self.features.at(front)
        own = stream[:, wide]
        self.read_symbols(front, wide, out=own)
        for block, (bias, down, site, up) in enumerate(self.blocks):
            active, feature, hidden = self.actives[block, :count], here[block], self.hiddens[block, :count]
            torch.clamp_min(own, 0, out=active[:, wide])
            torch.addmm(bias[narrow], active[:, : wide.stop], down[channel], out=feature[:, narrow])
            feature[:, narrow].relu_()
            known = self.known[block, :count, narrow]
            torch.addmm(known, feature[:, : narrow.stop], site[channel], out=hidden[:, narrow])
            hidden[:, narrow].relu_()
            own.addmm_(hidden[:, : narrow.stop], up[channel])
        return self.head.logits(channel, count)
