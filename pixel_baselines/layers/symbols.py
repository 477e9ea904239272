"""From symbols to features, and from features to logits."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixel_baselines.layers.masked_conv import pointwise_conv
from rasterwise.symbols.grid import Grid


class Layer(NamedTuple):
    """A 1×1 convolution.

    Attributes:
        weight: ``(outputs, inputs)``, zero where it is masked.
        bias: ``(outputs,)``.
    """

    weight: Tensor
    bias: Tensor


Embedding = Literal["scale", "learned"]


class SymbolEmbedding(nn.Module):
    """Symbols as input features of a convolution.

    Args:
        grid: Of the symbols.
        embedding: "scale" for one number in [-1, 1]; "learned" for a vector, where symbols have no order.
        width: Of the learned vector.

    Example:
        >>> import torch
        >>> from rasterwise import Grid
        >>> embedding = SymbolEmbedding(Grid(1, 1, 3, 3), "scale")
        >>> embedding(torch.tensor([[[[0, 1, 2]]]]), torch.float32)
        tensor([[[[-1.,  0.,  1.]]]])
    """

    def __init__(self, grid: Grid, embedding: Embedding, width: int = 1) -> None:
        super().__init__()
        self.levels = grid.levels
        self.vectors = nn.Embedding(grid.levels, width) if embedding == "learned" else None
        self.features = grid.channels * (width if embedding == "learned" else 1)

    def forward(self, symbols: Tensor, dtype: torch.dtype) -> Tensor:
        """int64 ``(B, C, H, W)`` to float ``(B, C, H, W)``, or to learned vectors ``(B, C, H, W, E)``."""
        if self.vectors is not None:
            return self.vectors(symbols)
        return symbols.to(dtype) * (2 / (self.levels - 1)) - 1

    def table(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The features of every symbol, ``(K, E)``."""
        return self(torch.arange(self.levels, device=device), dtype).reshape(self.levels, -1)


def as_feature_map(embedded: Tensor) -> Tensor:
    """What ``SymbolEmbedding`` gave, as a map ``(B, C · E, H, W)`` with the features of a symbol together."""
    return embedded if embedded.ndim == 4 else embedded.movedim(4, 2).flatten(1, 2)


class SoftmaxHead(nn.Module):
    """ReLU and 1×1 convolution, twice: the last features to the logits of every symbol of a site.

    Args:
        inputs: Features of the last layer.
        width: Features between the two convolutions.
        grid: Of the symbols.
    """

    def __init__(self, inputs: int, width: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.hidden = pointwise_conv(inputs, width, grid.channels)
        self.output = pointwise_conv(width, grid.channels * grid.levels, grid.channels)

    @property
    def layers(self) -> tuple[Layer, Layer]:
        """Both 1×1 layers as matrices."""
        first, second = (
            Layer(conv.masked_weight.flatten(1), conv.offset) for conv in (self.hidden, self.output)
        )
        return first, second

    def forward(self, x: Tensor) -> Tensor:
        """Float ``(B, inputs, H, W)`` to logits ``(B, C, H, W, K)``."""
        logits = self.output(F.relu(self.hidden(F.relu(x)), inplace=True))
        return logits.movedim(1, 3).unflatten(3, (self.grid.channels, self.grid.levels)).movedim(3, 1)
