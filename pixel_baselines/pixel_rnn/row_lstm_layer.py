"""The Row LSTM layer and its configuration."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.layers.channel_masks import channel_mask
from pixel_baselines.pixel_rnn.network import (
    PixelRNNConfig,
    RecurrentLayer,
    fan_in_uniform,
    lstm_step,
)
from rasterwise.configuration import Kernel, configuration


@configuration(kw_only=True)
class RowLSTMConfig(PixelRNNConfig):
    """A Row LSTM.

    Attributes:
        kernel: Width k of the k×1 convolutions along the row, input-to-state and state-to-state, odd. The
            context widens by k // 2 columns a row.
    """

    kernel: Kernel = 3


class RowLSTMLayer(RecurrentLayer):
    """One step a row: k×1 masked input-to-state for the whole map, k×1 state-to-state from the row above.

    The state-to-state convolution needs no mask: all of the row above comes before all of this row.
    """

    input_mask: Tensor

    def __init__(self, config: RowLSTMConfig) -> None:
        super().__init__(config, directions=1)
        self.reach, channels, features = config.kernel // 2, config.grid.channels, config.width
        # The taps right of the centre are all masked and not stored; the centre has mask B in every gate.
        mask = torch.ones(config.state_width, self.reach + 1, features)
        mask[:, -1] = channel_mask(features, config.state_width, channels, "B")
        self.register_buffer("input_mask", mask.flatten(1).repeat(4, 1), persistent=False)
        self.input_weight = fan_in_uniform(*self.input_mask.shape, fan_in=self.input_mask.shape[1])
        taps = config.kernel * config.state_width
        self.state_weight = fan_in_uniform(self.gates, taps, fan_in=taps)

    @property
    def masked_weight(self) -> Tensor:
        """Input-to-state ``(4h, (k // 2 + 1) · 2h)``, taps from left to the site's own; zero where masked."""
        return self.input_weight * self.input_mask

    def hidden_map(self, x: Tensor, label: Tensor) -> Tensor:
        columns = x.shape[1]
        padded = F.pad(x, (0, 0, 0, 0, self.reach, 0))
        window = torch.cat([padded[:, tap : tap + columns] for tap in range(self.reach + 1)], -1)
        gates = F.linear(window, self.masked_weight)
        gates = gates + self.gate_bias(label)[0].to(gates.dtype)
        state_weight = self.state_weight.t()
        hidden: list[Tensor] = []
        cell = None
        for sums in gates.unbind(0):
            if hidden:
                states = self._neighbours(hidden[-1])
                sums = torch.addmm(sums.flatten(0, 1), states, state_weight).view(sums.shape)
            state, cell = lstm_step(sums, cell)
            hidden.append(state)
        return torch.stack(hidden)

    def _neighbours(self, state: Tensor) -> Tensor:
        """The k states around each column of a row ``(W, B, h)``, side by side: ``(W · B, k · h)``."""
        columns = len(state)
        padded = F.pad(state, (0, 0, 0, 0, self.reach, self.reach))
        return torch.cat([padded[tap : tap + columns] for tap in range(2 * self.reach + 1)], -1).flatten(0, 1)
