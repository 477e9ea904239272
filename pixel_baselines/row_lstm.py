"""Row LSTM: an LSTM that goes down the rows, all columns of a row at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pixel_baselines.channel_masks import channel_mask
from pixel_baselines.pixel_rnn import PixelRNN, PixelRNNConfig, RecurrentLayer, fan_in_uniform, lstm_step
from pixel_baselines.pixel_rnn_decoder import LayerSite, PixelRNNDecoder
from pixel_baselines.row_lstm_wavefront import RowLSTMWavefront
from rasterwise.autoregressive import Decoder
from rasterwise.condition import Condition
from rasterwise.errors import InputError
from rasterwise.wavefront import WavefrontDecoder


@dataclass(frozen=True, kw_only=True)
class RowLSTMConfig(PixelRNNConfig):
    """A Row LSTM.

    Attributes:
        kernel: Width k of the k×1 convolutions along the row, input-to-state and state-to-state, odd. The
            context widens by k // 2 columns a row.
    """

    kernel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise InputError(f"kernel is {self.kernel}, expected an odd number from 3 on")


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
        """The k states around each column of a row ``(W, B, h)``, beside one another: ``(W · B, k · h)``."""
        columns = len(state)
        padded = F.pad(state, (0, 0, 0, 0, self.reach, self.reach))
        return torch.cat([padded[tap : tap + columns] for tap in range(2 * self.reach + 1)], -1).flatten(0, 1)


class RowLSTM(PixelRNN):
    """PixelRNN with Row LSTM layers: sees a triangle that widens upwards, and so not all earlier sites.

    With mask A of side 2q + 1, L layers and kernel k = 2p + 1 a site (r, c) sees of row r the columns c − Lp − q
    to c − 1, and of row r − e those from c − (e + L)p − q to c + (e − 1)p + q (for p <= q + 1, as in the paper).
    The earlier sites right of that are the model's blind spot, thanks to which ``sample`` draws a row while the
    one above it is still unfinished, see ``RowLSTMWavefront``.

    Args:
        config: Its architecture and its data.

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu, Pixel Recurrent Neural Networks, 2016 (arXiv 1601.06759),
        section 3.1.

    Example:
        >>> from rasterwise.grid import Grid
        >>> model = RowLSTM(RowLSTMConfig(grid=Grid(3, 4, 5, 256), depth=2, width=24)).eval()
        >>> symbols = model.sample(2, generator=torch.Generator().manual_seed(0))
        >>> symbols.shape, model.log_prob(symbols).shape
        (torch.Size([2, 3, 4, 5]), torch.Size([2]))
    """

    kind = "row-lstm"
    config_class = RowLSTMConfig
    config: RowLSTMConfig

    def build_layer(self) -> RowLSTMLayer:
        return RowLSTMLayer(self.config)

    def decoder(self, batch_size: int, condition: Condition | None = None) -> Decoder:
        return RowLSTMDecoder(self, batch_size, condition)

    def wavefront_decoder(self, batch_size: int, condition: Condition | None = None) -> WavefrontDecoder:
        return RowLSTMWavefront(self, batch_size, condition)


class RowLSTMDecoder(PixelRNNDecoder):
    """Carries the states of one row: what a row gets from the row above is computed for all of it at once."""

    @torch.no_grad()
    def __init__(self, model: RowLSTM, batch_size: int, condition: Condition | None) -> None:
        super().__init__(model, batch_size, condition)
        self.reach, width = model.config.kernel // 2, model.config.state_width
        depth, columns = model.config.depth, self.columns
        layers = cast(list[RowLSTMLayer], list(model.layers))
        order = self.gate_order
        self.bias = torch.stack([layer.gate_bias(self.label)[0, :, order] for layer in layers])[:, None]
        self.state_weight = torch.stack([layer.state_weight[order].t() for layer in layers])
        # States of all columns: of the row above until a site's own are written over them.
        self.hidden = self.zeros(depth, columns + 2 * self.reach, batch_size, width)
        self.cell = self.zeros(depth, columns, batch_size, width)
        self.neighbours = self.zeros(depth, columns, batch_size, (2 * self.reach + 1) * width)
        self.from_above = self.zeros(depth, columns, batch_size, 4 * width)
        # The map of one row, batch first: the window of taps of a picture is then one stretch of memory.
        self.map = self.zeros(depth, batch_size, self.reach + columns, 2 * width)
        self.prepare(model, [layer.masked_weight[order].t() for layer in layers])

    def layer_site(self, layer: int, column: int) -> LayerSite:
        return LayerSite(
            map=self.map[layer, :, self.reach + column],
            window=self.map[layer, :, column : column + self.reach + 1].view(self.batch_size, -1),
            from_above=self.from_above[layer, column],
            cell=self.cell[layer, column],
            hidden=self.hidden[layer, self.reach + column],
        )

    def read_rows_above(self, row: int) -> None:
        if row == 0:
            self.from_above.copy_(self.bias.expand_as(self.from_above))
            return
        for tap, states in enumerate(self.neighbours.chunk(2 * self.reach + 1, -1)):
            states.copy_(self.hidden[:, tap : tap + self.columns])
        torch.bmm(self.neighbours.flatten(1, 2), self.state_weight, out=self.from_above.flatten(1, 2))
        self.from_above.add_(self.bias)
