"""PixelCNN++'s configuration, layers and teacher-forced logits."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pixel_baselines.pixelcnn_pp.logistic_mixture import LogisticMixture, neighbours
from pixel_baselines.pixelcnn_pp.shifted_conv import (
    DownRightShiftedConv2d,
    DownRightShiftedUpsample,
    DownShiftedConv2d,
    DownShiftedUpsample,
    WeightNormConv2d,
    data_dependent_start,
)
from rasterwise.configuration import LATER, Decay, Depth, Width, configuration
from rasterwise.models.autoregressive import AutoregressiveConfig, AutoregressiveModel
from rasterwise.symbols.condition import Condition
from rasterwise.symbols.likelihoods import finite_log_prob


@configuration(kw_only=True)
class PixelCNNPPConfig(AutoregressiveConfig):
    """A PixelCNN++. The defaults suit a CPU; the paper's CIFAR-10 model has width 160, 5 blocks, dropout 0.5.

    Attributes:
        width: Channels of each stream.
        blocks: Gated blocks a resolution on the way down, and as many (one more, but at the lowest
            resolution) on the way up.
        resolutions: 1 to 3, each half as high and wide as the one before; a grid that is down to one site
            has no lower one.
        components: Logistics in the mixture (M).
        relative_means: The network gives the means of differences to neighbouring pixels (of a component to the pixel
            on the left, above, or the plane through both), and not of the pixels themselves, as in the paper. A small
            model then learns flat surfaces and smooth ones sooner.
        dropout: Inside the gated blocks, in training.
        embedding: How the network sees symbols: as values in [-1, 1], or as learned vectors (for codes, which
            have no order). The likelihood takes neighbouring symbols to be alike either way.
        embedding_width: Of learned vectors.
    """

    width: Width = 64
    blocks: Depth = 2
    resolutions: Annotated[int, Field(ge=1, le=3)] = 3
    components: Depth = 10
    relative_means: bool = field(default=False, metadata=LATER)
    dropout: Decay = 0.1
    embedding: Literal["scale", "learned"] = "scale"
    embedding_width: Width = 32


class Activation(NamedTuple):
    """A stream's activations and their concat-ELU, which several convolutions read: it is computed once.

    Attributes:
        value: ``(B, D, H, W)``.
        elu: concat-ELU of the value, ``(B, 2D, H, W)``.
    """

    value: Tensor
    elu: Tensor

    @classmethod
    def of(cls, value: Tensor) -> Activation:
        return cls(value, concat_elu(value))


class Streams(NamedTuple):
    """The two streams at one resolution.

    Attributes:
        down: At a site: of the pixels in the rows above it.
        right: At a site: also of those to the left of it.
    """

    down: Activation
    right: Activation


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and of -x, side by side as channels: ``(B, D, ...)`` to ``(B, 2D, ...)``."""
    return F.elu(torch.cat([x, -x], 1))


class GatedBlock(nn.Module):
    """Gated residual block of one stream.

    Args:
        convolution: The stream's kind of convolution.
        kernel: Its kernel.
        beside: Channels that it also reads at each site: of the other stream and of a skip connection.
        config: Width, dropout and classes.
    """

    def __init__(
        self,
        convolution: type[WeightNormConv2d],
        kernel: tuple[int, int],
        beside: int,
        config: PixelCNNPPConfig,
    ) -> None:
        super().__init__()
        width = config.width
        self.conv_in = convolution(2 * width, width, kernel)
        # Saved weights have this name, and the fingerprints of models with it.
        self.beside = DownRightShiftedConv2d(beside, width, (1, 1)) if beside else None
        self.dropout = nn.Dropout(config.dropout)
        # The paper's start: each block changes its input little at first.
        self.conv_out = convolution(2 * width, 2 * width, kernel, start_scale=0.1)
        self.label = nn.Embedding(len(config.classes) + 1, 2 * width) if config.classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.05)

    def forward(self, x: Activation, class_index: Tensor, beside: Tensor | None) -> Activation:
        hidden = self.conv_in(x.elu)
        if self.beside is not None:
            hidden = hidden + self.beside(beside)
        gates = self.conv_out(self.dropout(concat_elu(hidden)))
        if self.label is not None:
            gates = gates + self.label(class_index)[:, :, None, None]
        return Activation.of(x.value + F.glu(gates, 1))


class TwoStreamBlock(nn.Module):
    """A gated block of the downward stream, and one of the down-right stream that reads its output.

    Args:
        skip: Whether it is on the way up and reads the activations of the way down.
        config: As for ``GatedBlock``.
    """

    def __init__(self, skip: bool, config: PixelCNNPPConfig) -> None:
        super().__init__()
        read = 2 * config.width
        self.down = GatedBlock(DownShiftedConv2d, (2, 3), read if skip else 0, config)
        self.right = GatedBlock(DownRightShiftedConv2d, (2, 2), 2 * read if skip else read, config)

    def forward(self, x: Streams, class_index: Tensor, skip: Streams | None = None) -> Streams:
        down = self.down(x.down, class_index, skip.down.elu if skip else None)
        beside = torch.cat([down.elu, skip.right.elu], 1) if skip else down.elu
        return Streams(down, self.right(x.right, class_index, beside))


class Downsample(nn.Module):
    """Both streams to half the height and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = DownShiftedConv2d(width, width, (2, 3), stride=2)
        self.right = DownRightShiftedConv2d(width, width, (2, 2), stride=2)

    def forward(self, x: Streams) -> Streams:
        return Streams(Activation.of(self.down(x.down.value)), Activation.of(self.right(x.right.value)))


class Upsample(nn.Module):
    """Both streams to twice the height and width, less a row or column where the larger size is odd."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = DownShiftedUpsample(width, width)
        self.right = DownRightShiftedUpsample(width, width)

    def forward(self, x: Streams, height: int, width: int) -> Streams:
        return Streams(
            Activation.of(self.down(x.down.value, height, width)),
            Activation.of(self.right(x.right.value, height, width)),
        )


class Level(nn.Module):
    """One resolution: blocks on the way down, the lower resolutions, and blocks on the way up with skips.

    Args:
        height: Rows at this resolution.
        width: Columns at this resolution.
        resolutions: This one and those below it.
        config: Of the model.
    """

    def __init__(self, height: int, width: int, resolutions: int, config: PixelCNNPPConfig) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.lower: Level | None = None
        if resolutions > 1 and max(height, width) > 1:
            self.shrink, self.grow = Downsample(config.width), Upsample(config.width)
            self.lower = Level(-(-height // 2), -(-width // 2), resolutions - 1, config)
        ways_up = config.blocks + (self.lower is not None)
        self.descending = nn.ModuleList(TwoStreamBlock(False, config) for _ in range(config.blocks))
        self.ascending = nn.ModuleList(TwoStreamBlock(True, config) for _ in range(ways_up))

    def forward(self, x: Streams, class_index: Tensor) -> Streams:
        skips = [x]
        for block in self.descending:
            skips.append(block(skips[-1], class_index))
        if self.lower is None:
            x = skips.pop()
        else:
            x = self.lower(self.shrink(skips[-1]), class_index)
            x = self.grow(x, self.height, self.width)
        for block in self.ascending:
            x = block(x, class_index, skips.pop())
        return x


class PixelCNNPPNetwork(AutoregressiveModel):
    """The part of ``PixelCNNPP`` that its decoder reads: layers, log-probabilities and teacher-forced logits.

    Args:
        config: Its architecture and its data.
    """

    config_class = PixelCNNPPConfig
    config: PixelCNNPPConfig
    any_size: ClassVar[bool] = True
    initialised: Tensor

    def __init__(self, config: PixelCNNPPConfig) -> None:
        super().__init__(config)
        grid, width = config.grid, config.width
        self.mixture = LogisticMixture(grid.channels, grid.levels, config.components)
        self.vectors: nn.Embedding | None = None
        if config.embedding == "learned":
            self.vectors = nn.Embedding(grid.levels, config.embedding_width)
        features = 1 + grid.channels * (config.embedding_width if self.vectors else 1)
        self.first_down = DownShiftedConv2d(features, width, (2, 3))
        self.first_above = DownShiftedConv2d(features, width, (1, 3))
        self.first_left = DownRightShiftedConv2d(features, width, (2, 1))
        self.level = Level(grid.height, grid.width, config.resolutions, config)
        self.last = DownRightShiftedConv2d(width, self.mixture.parameter_count, (1, 1))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.uint8))

    @property
    def value_dtype(self) -> torch.dtype:
        """Of pixels' values: bfloat16 does not hold 256 levels."""
        return torch.promote_types(self.last.bias.dtype, torch.float32)

    def embed(self, symbols: Tensor) -> Tensor:
        """Values in [-1, 1], float32 at least; of learned vectors ``(..., 1 + E)``, the value comes first."""
        values = self.mixture.values(symbols, self.value_dtype)
        if self.vectors is None:
            return values
        return torch.cat([values[..., None], self.vectors(symbols)], -1)

    def values_in(self, inputs: Tensor) -> Tensor:
        """The values ``(B, C, H, W)`` in what ``embed`` gave."""
        return inputs if self.vectors is None else inputs[..., 0]

    def logits_from(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        raw, values = self.mixture_parameters(inputs, condition), self.values_in(inputs)
        return self.mixture.logits(raw, values.movedim(1, -1), self.reference(values)).movedim(-2, 1)

    def log_prob(self, symbols: Tensor, condition: Condition | None = None) -> Tensor:
        """Exact log-probability of grids: ``(B,)`` nats. It never makes the K-way distributions."""
        self.grid.check(symbols)
        inputs = self.embed(symbols)
        raw = self.mixture_parameters(inputs, condition)
        reference = self.reference(self.values_in(inputs))
        log_prob = self.mixture.log_prob(raw, symbols.movedim(1, -1), reference).flatten(1).sum(1)
        return log_prob if self.training else finite_log_prob(log_prob)

    def reference(self, values: Tensor) -> Tensor | None:
        """What the means of every site are relative to, ``(B, H, W, C, M)``; None where they are absolute.

        Args:
            values: ``(B, C, H, W)`` in [-1, 1].
        """
        if not self.config.relative_means:
            return None
        left, above = F.pad(values, (1, -1)), F.pad(values, (0, 0, 1, -1))
        return neighbours(left, above, F.pad(above, (1, -1)), self.config.components).movedim(1, -2)

    def mixture_parameters(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        """What ``embed`` gave to the likelihood's parameters of every site, ``(B, H, W, P)``."""
        class_index = self.class_index(condition, len(inputs))
        features = self.features(inputs)
        # A buffer and not an attribute: a run that goes on from a checkpoint must not start again.
        if self.training and not bool(self.initialised):
            with data_dependent_start(self):
                self._network(features, class_index)
            self.initialised.fill_(1)
        return self._network(features, class_index).movedim(1, -1)

    def features(self, inputs: Tensor) -> Tensor:
        """What ``embed`` gave as the network's input ``(B, F, H, W)``: ones, then each channel's features.

        The ones show the network where the grid ends, beyond which everything is 0.
        """
        if self.vectors is not None:
            inputs = inputs[..., 1:].movedim(-1, 2).flatten(1, 2)
        return F.pad(inputs, (0, 0, 0, 0, 1, 0), value=1.0).to(self.last.bias.dtype)

    def _network(self, features: Tensor, class_index: Tensor) -> Tensor:
        # The paper shifts what the first convolutions give; shifting what they read is the same but for the
        # first row and column, which so have their bias too.
        features = features.contiguous(memory_format=torch.channels_last)
        above = F.pad(features, (0, 0, 1, -1))
        left = F.pad(features, (1, -1, 0, 0))
        streams = Streams(
            Activation.of(self.first_down(above)),
            Activation.of(self.first_above(above) + self.first_left(left)),
        )
        streams = self.level(streams, class_index)
        return self.last(F.elu(streams.right.value))
