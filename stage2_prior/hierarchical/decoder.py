"""Cached decoding of the hierarchical prior: its two transformers, one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from rasterwise.decoding.decoder import CaptureRegion, Decoder
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.order import raster_order
from stage2_prior.hierarchical.network import BottomPrior, HierarchicalPriorNetwork
from stage2_prior.transformer.decoder import PriorDecoder


class BottomDecoder(PriorDecoder):
    """Decodes the bottom grid, once it has been given the map of the top grid.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B labels, or None.
    """

    def __init__(self, model: BottomPrior, batch_size: int, condition: Condition | None) -> None:
        super().__init__(model, batch_size, condition)
        self.model = model
        self.features = self.stream.new_zeros(model.grid.size, *self.stream.shape)

    def give(self, features: Tensor) -> None:
        """Set the features of every site, ``(B, D, H, W)``, before the first step."""
        self.features.copy_(self.model.sequence_of(features).transpose(0, 1))

    def _pass_layers(self, stream: Tensor) -> Tensor:
        stream.add_(self.cache.row_of(self.features).view_as(stream))
        return super()._pass_layers(stream)


class HierarchicalDecoder(Decoder):
    """Decodes a hierarchical prior in raster order of the joint grid: the top grid, then the bottom grid.

    Both transformers' decoders are made, with all their memory, when it is made. The encoder reads the top grid once,
    when it is full, with the weights that the model has then.

    Args:
        model: In evaluation mode.
        batch_size: How many grids are decoded at once.
        condition: B conditions, or None.
    """

    def __init__(self, model: HierarchicalPriorNetwork, batch_size: int, condition: Condition | None) -> None:
        super().__init__(model.grid, batch_size, raster_order(model.grid, model.device))
        self.model = model
        self.top = model.top.decoder(batch_size, condition)
        self.bottom = BottomDecoder(model.bottom, batch_size, condition)
        rotary, size = model.top_encoder.rotary, model.top.grid.size
        rotary.angles = rotary.angles.to(model.device)  # now, since a copy from the host makes steps wait
        self.codes = torch.zeros(batch_size, size, dtype=torch.int64, device=model.device)
        # Where the next of them goes, on the device: a captured step knows no numbers of the host's.
        self.cursor = torch.zeros(1, dtype=torch.int64, device=model.device)

    @property
    def current(self) -> Decoder:
        """The decoder of the grid in which the next step is."""
        return self.bottom if self.index >= self.codes.shape[1] else self.top

    def capture_regions(self) -> list[CaptureRegion]:
        return [*self.top.capture_regions(), *self.bottom.capture_regions()]

    def skip(self, steps: int) -> None:
        self.current.skip(steps)
        super().skip(steps)

    def _logits(self) -> Tensor:
        if self.index == self.codes.shape[1]:
            top = self.model.top
            self.bottom.give(self.model.top_encoder(top.embed(top.grid.unflatten(self.codes))))
        return self.current.logits()

    def _advance(self, symbols: Tensor) -> None:
        current = self.current
        current.advance(symbols)
        if current is self.top:
            self.codes.index_copy_(1, self.cursor, symbols)
            self.cursor.add_(1)
