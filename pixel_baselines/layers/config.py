"""Configuration that models share whose first layer is a masked convolution."""

from __future__ import annotations

from dataclasses import dataclass

from pixel_baselines.layers.symbols import Embedding
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveConfig


@dataclass(frozen=True, kw_only=True)
class MaskedInputConfig(AutoregressiveConfig):
    """What the configurations of PixelCNN, Gated PixelCNN and the PixelRNNs share.

    Attributes:
        width: Features of the map that the layers pass on.
        output_width: Features of the 1×1 layer before the softmax.
        input_kernel: Side of the first convolution (mask A), odd.
        embedding: "scale" reads a symbol as a number in [-1, 1]; "learned" as a vector of its own, for
            symbols without an order, such as codes.
        embedding_width: Width of the learned vector.
    """

    width: int = 64
    output_width: int = 128
    input_kernel: int = 7
    embedding: Embedding = "scale"
    embedding_width: int = 32

    def __post_init__(self) -> None:
        self.check_kernel("input_kernel")
        for name in ("width", "output_width"):
            if getattr(self, name) < self.grid.channels:
                raise InputError(
                    f"{name} is {getattr(self, name)}, expected at least the {self.grid.channels} symbols of a site"
                )
        if self.embedding not in ("scale", "learned"):
            raise InputError(f"embedding is {self.embedding!r}, expected 'scale' or 'learned'")
        if self.embedding_width < 1:
            raise InputError(f"embedding_width is {self.embedding_width}, expected at least 1")

    def check_kernel(self, name: str) -> None:
        """Raise InputError unless the field is the side of a kernel with a centre, wider than it."""
        if getattr(self, name) < 3 or getattr(self, name) % 2 == 0:
            raise InputError(f"{name} is {getattr(self, name)}, expected an odd number from 3 on")

    def check_halves(self) -> None:
        """Raise InputError unless half of ``width`` can be shared out over the symbols of a site."""
        if self.width % 2 or self.width < 2 * self.grid.channels:
            raise InputError(
                f"width is {self.width}, expected an even number, "
                f"at least twice the {self.grid.channels} symbols of a site"
            )


@dataclass(frozen=True, kw_only=True)
class MaskedConvConfig(MaskedInputConfig):
    """What the configurations of PixelCNN and Gated PixelCNN share.

    Attributes:
        kernel: Side of the layers' convolutions, odd.
    """

    kernel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_kernel("kernel")
