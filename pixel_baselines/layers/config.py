"""Configuration that models share whose first layer is a masked convolution."""

from __future__ import annotations

from pixel_baselines.layers.symbols import Embedding
from rasterwise.configuration import Kernel, Width, configuration
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveConfig


@configuration(kw_only=True)
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

    width: Width = 64
    output_width: Width = 128
    input_kernel: Kernel = 7
    embedding: Embedding = "scale"
    embedding_width: Width = 32

    def __post_init__(self) -> None:
        for name in ("width", "output_width"):
            if getattr(self, name) < self.grid.channels:
                raise InputError(
                    f"{name} is {getattr(self, name)}, expected at least the {self.grid.channels} symbols of a site"
                )

    def check_halves(self) -> None:
        """Raise InputError unless half of ``width`` can be shared out over the symbols of a site."""
        if self.width % 2 or self.width < 2 * self.grid.channels:
            raise InputError(
                f"width is {self.width}, expected an even number, "
                f"at least twice the {self.grid.channels} symbols of a site"
            )


@configuration(kw_only=True)
class MaskedConvConfig(MaskedInputConfig):
    """What the configurations of PixelCNN and Gated PixelCNN share.

    Attributes:
        kernel: Side of the layers' convolutions, odd.
    """

    kernel: Kernel = 3
