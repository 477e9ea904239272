"""What both PixelRNNs share: masked input convolution, residual LSTM layers, 1×1 output layers."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixel_baselines.layers.channel_masks import MaskedLinear
from pixel_baselines.layers.config import MaskedInputConfig
from pixel_baselines.layers.masked_conv import masked_conv
from pixel_baselines.layers.symbols import Layer, SymbolEmbedding, as_feature_map
from rasterwise.configuration import Depth, configuration
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.symbols.condition import Condition


@configuration(kw_only=True)
class PixelRNNConfig(MaskedInputConfig):
    """What the configurations of both PixelRNNs share.

    The paper's CIFAR-10 models have depth 12, width 256, output_width 1024; its MNIST model has depth 7, width 32,
    output_width 32.

    Attributes:
        width: Features of the map between the layers (the paper's 2h, even); an LSTM has half as many.
        depth: LSTM layers.
    """

    depth: Depth = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_halves()

    @property
    def state_width(self) -> int:
        """LSTM features a direction (the paper's h)."""
        return self.width // 2


class RecurrentLayer(nn.Module):
    """A residual LSTM layer on a map ``(H, W, B, 2h)``: gates, recurrence over h features, 1×1 back to 2h.

    The map is site-major, so that a row, a diagonal or a site of the whole batch is one contiguous matrix.
    The gates come in the paper's order o, f, i, g: three sigmoids, then the tanh.

    Args:
        config: Of the model.
        directions: How many LSTMs the layer has, their gates side by side.
    """

    def __init__(self, config: PixelRNNConfig, directions: int) -> None:
        super().__init__()
        self.width, self.gates = config.state_width, 4 * config.state_width
        # An LSTM that starts by forgetting half of its cell a step learns long contexts slowly: the forget
        # gate starts open (Jozefowicz et al., 2015).
        bias = torch.zeros(directions, 4, config.state_width)
        bias[:, 1] = 1
        self.bias = nn.Parameter(bias.flatten(1))
        # No bias: the map has the input convolution's already.
        self.output = MaskedLinear(
            config.state_width, config.width, channels=config.grid.channels, bias=False
        )
        self.label_bias: nn.Embedding | None = None
        if config.classes:
            self.label_bias = nn.Embedding(len(config.classes) + 1, directions * self.gates)
            nn.init.zeros_(self.label_bias.weight)

    def gate_bias(self, label: Tensor) -> Tensor:
        """Bias of the gates given rows of the label table ``(B,)``: ``(directions, B, 4h)``."""
        bias = self.bias[:, None].expand(-1, len(label), -1)
        if self.label_bias is None:
            return bias
        return bias + self.label_bias(label).unflatten(1, (len(self.bias), self.gates)).transpose(0, 1)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """``(H, W, B, 2h)`` to the same, given rows of the label table ``(B,)``."""
        return x + self.output(self.hidden_map(x, label))

    @abstractmethod
    def hidden_map(self, x: Tensor, label: Tensor) -> Tensor:
        """The LSTM's hidden states ``(H, W, B, h)``; a site's sees no feature of a later site."""


def lstm_step(gates: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor]:
    """One LSTM step from the gates' sums ``(..., 4h)``.

    Args:
        gates: Before the nonlinearities, in the order o, f, i, g.
        cell: ``(..., h)``, or None for a cell of zeros.

    Returns:
        Hidden state and cell, ``(..., h)`` each. The cell stays float32 where the gates are of half precision:
        it adds up over tens of steps.
    """
    width = gates.shape[-1] // 4
    squashed, candidate = gates.split([3 * width, width], -1)
    output_gate, forget, update = squashed.sigmoid().chunk(3, -1)
    added = update * candidate.tanh()
    if cell is None:
        cell = torch.zeros_like(added, dtype=torch.promote_types(gates.dtype, torch.float32))
    cell = forget * cell + added
    return output_gate * cell.tanh().to(gates.dtype), cell


def fan_in_uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """A weight drawn like torch's own layers draw theirs: uniform within ±1/√fan_in."""
    return nn.Parameter(torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))


class PixelRNN(AutoregressiveModel):
    """What Row LSTM and Diagonal BiLSTM share; a subclass builds its kind of layer.

    Args:
        config: Its architecture and its data.

    Attributes:
        extra_columns: Columns of the map to the right of the grid, where there are no symbols.

    References:
        van den Oord, Kalchbrenner and Kavukcuoglu, Pixel Recurrent Neural Networks, 2016 (arXiv 1601.06759).
    """

    config: PixelRNNConfig
    extra_columns: ClassVar[int] = 0

    def __init__(self, config: PixelRNNConfig) -> None:
        super().__init__(config)
        grid, channels = config.grid, config.grid.channels
        self.embedding = SymbolEmbedding(grid, config.embedding, config.embedding_width)
        features = self.embedding.features
        self.input = masked_conv(features, config.width, config.input_kernel, "A", channels)
        self.layers = nn.ModuleList([self.build_layer() for _ in range(config.depth)])
        self.hidden = MaskedLinear(config.width, config.output_width, channels=channels)
        self.output = MaskedLinear(config.output_width, channels * grid.levels, channels=channels)

    @property
    def head_layers(self) -> tuple[Layer, Layer]:
        """Both 1×1 layers at the end as matrices."""
        first, second = (Layer(layer.masked_weight, layer.bias) for layer in (self.hidden, self.output))
        return first, second

    @abstractmethod
    def build_layer(self) -> RecurrentLayer:
        """One more layer."""

    def embed(self, symbols: Tensor) -> Tensor:
        """int64 ``(B, C, H, W)`` to floats in [-1, 1] of that shape, or to vectors ``(B, C, H, W, E)``."""
        return self.embedding(symbols, self.input.weight.dtype)

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        label = self.class_index(condition, len(inputs))
        symbols = F.pad(as_feature_map(inputs), (0, self.extra_columns))
        x = self.input(symbols).permute(2, 3, 0, 1).contiguous()
        for layer in self.layers:
            x = layer(x, label)
        logits = self.output(F.relu(self.hidden(F.relu(x[:, : self.grid.width]))))
        return logits.unflatten(3, (self.grid.channels, self.grid.levels)).permute(2, 3, 0, 1, 4)
