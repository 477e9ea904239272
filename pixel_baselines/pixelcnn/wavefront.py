"""Cached decoding of PixelCNN in wavefronts: its blind spot lets a row begin before the one above it has ended."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pixel_baselines.decoding.head import HeadDecoder
from pixel_baselines.decoding.rows import site_matrices
from pixel_baselines.decoding.wavefront import Tap, WavefrontCache, WavefrontDecoder
from pixel_baselines.layers.channel_masks import channel_groups
from pixel_baselines.pixelcnn.network import PixelCNNNetwork
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.order import Wavefront


class ChannelStep(NamedTuple):
    """The features of one channel group, and every block's weights between them.

    Attributes:
        wide: Of the residual stream.
        narrow: Of the k×k convolutions' inputs and outputs.
        down_bias: Of the first 1×1 layers.
        down: Their weights.
        site: The k×k convolutions' taps at the site itself.
        up: The weights of the second 1×1 layers.
    """

    wide: slice
    narrow: slice
    down_bias: list[Tensor]
    down: list[Tensor]
    site: list[Tensor]
    up: list[Tensor]


class PixelCNNWavefrontDecoder(WavefrontDecoder):
    """Decodes a PixelCNN on diagonals of sites, by products with a row for each site of a diagonal.

    Of the row just above it, a site sees no more than p = ``input_kernel // 2`` columns to the right; of the rows
    above that one it sees only what has been drawn by then, too. A row may therefore follow the row above it
    p + 1 columns behind (q + 1 where q = ``kernel // 2`` is more). A W×H grid takes W + (p + 1)(H − 1) wavefronts
    in place of W·H sites, and the images are those of raster order.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    @torch.no_grad()
    def __init__(self, model: PixelCNNNetwork, batch_size: int, condition: Condition | None) -> None:
        config, grid, q = model.config, model.grid, model.config.kernel // 2
        classes = model.class_index(condition, batch_size)
        bias = model.input.offset.expand(batch_size, -1)
        if model.label_bias is not None:
            bias = bias + model.label_bias(classes)
        super().__init__(grid, batch_size, model.embedding, model.input, bias, reach=q)
        width, half, new = config.width, config.width // 2, model.input.weight.new_zeros
        # Every tap but the site's own is known before a wavefront begins: a product for all blocks at once. A tap that
        # points to a later time points beyond the right edge, where there are zeros.
        taps = [Tap(up, across) for up in range(q + 1) for across in range(-q, q + 1)]
        taps = [tap for tap in taps if tap.across < self.lag * tap.up]
        weights = torch.stack([block.conv.masked_weight for block in model.blocks])
        self.tap_matrices = {
            tap: weights[:, :, :, q - tap.up, q + tap.across].transpose(1, 2).contiguous() for tap in taps
        }
        self.conv_bias = torch.stack([block.conv.offset for block in model.blocks])[:, None]
        self.features = WavefrontCache(model.input.weight, config.blocks, half, self, taps)

        matrices = [
            (
                site_matrices(block.down, "B", grid.channels),
                # The taps left of the site are among those above.
                [matrix[q * half :] for matrix in site_matrices(block.conv, "B", grid.channels)],
                site_matrices(block.up, "B", grid.channels),
            )
            for block in model.blocks
        ]
        wide_groups, narrow_groups = (channel_groups(count, grid.channels) for count in (width, half))
        self.channel_steps = [
            ChannelStep(
                wide,
                narrow,
                [block.down.offset[narrow] for block in model.blocks],
                *([kind[channel] for kind in kinds] for kinds in zip(*matrices, strict=True)),
            )
            for channel, (wide, narrow) in enumerate(zip(wide_groups, narrow_groups, strict=True))
        ]
        self.hidden = new(config.blocks, self.most, half)
        self.stream = new(self.most, width)
        # A block's later channel groups read what its earlier ones left; with one group all blocks share one buffer.
        self.active = new(1 if grid.channels == 1 else config.blocks, self.most, width)
        self.active = self.active.expand(config.blocks, -1, -1)
        self.head = HeadDecoder(*model.head.layers, self.stream, grid.channels)

    def _begin(self, wavefront: Wavefront) -> None:
        known = self.hidden[:, : self.count(wavefront)]
        known.copy_(self.conv_bias.expand_as(known))
        self.features.add_to(known, wavefront, self.tap_matrices)
        self.features.begin(wavefront)

    def _step(self, wavefront: Wavefront) -> Tensor:
        step, count = self.channel_steps[wavefront.channel], self.count(wavefront)
        own = self.stream[:count, step.wide]
        self.read_symbols(wavefront, step.wide, out=own)
        # All views at once: with so few rows a slice takes as long as the arithmetic of a ReLU.
        active, hidden, features = self.active[:, :count], self.hidden[:, :count], self.features.at(wavefront)
        for active_own, active_seen, feature, features_seen, sums, hidden_seen, bias, down, site, up in zip(
            active[..., step.wide].unbind(),
            active[..., : step.wide.stop].unbind(),
            features[..., step.narrow].unbind(),
            features[..., : step.narrow.stop].unbind(),
            hidden[..., step.narrow].unbind(),
            hidden[..., : step.narrow.stop].unbind(),
            step.down_bias,
            step.down,
            step.site,
            step.up,
            strict=True,
        ):
            torch.clamp_min(own, 0, out=active_own)
            torch.addmm(bias, active_seen, down, out=feature).relu_()
            sums.addmm_(features_seen, site).relu_()
            own.addmm_(hidden_seen, up)
        return self.head.logits(wavefront.channel, count)
