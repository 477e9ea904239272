"""The families of models that are compared, and the configuration of each at a resolution and a size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.compare.plan.settings import Cell, Size
from pixel_baselines import (
    DiagonalBiLSTMConfig,
    GatedPixelCNNConfig,
    ImageGPTConfig,
    PixelCNNConfig,
    PixelCNNPPConfig,
    RowLSTMConfig,
)
from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveConfig
from rasterwise.symbols.grid import Grid
from stage1_vqvae import ConvolutionalConfig, VectorQuantizerConfig, VQVAEConfig
from stage1_vqvae.tokenizers.learned import FACTORS
from stage2_prior import TransformerPriorConfig

Symbols = Literal["subpixels", "palette", "codes"]

CODE_ROWS = 8
COLOURS = 512
GREYS = 16
"""Colours of a palette, and greys of a grey one: all 256 would leave nothing to choose, and digits have 17."""


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        title: Its name in tables and plots.
        symbols: What it models: 256 levels a subpixel, palette colours, or the codes of a VQ-VAE.
        size: The default, the same at every resolution.
        config: The model's configuration of a grid and a size.
        learning_rate: The highest of its schedule.
    """

    title: str
    symbols: Symbols
    size: Size
    config: Callable[[Grid, Size], AutoregressiveConfig]
    learning_rate: float = 2e-3


def _pixelcnn(grid: Grid, size: Size) -> PixelCNNConfig:
    return PixelCNNConfig(grid=grid, width=size.width, blocks=size.depth, output_width=2 * size.width)


def _gated_pixelcnn(grid: Grid, size: Size) -> GatedPixelCNNConfig:
    return GatedPixelCNNConfig(grid=grid, width=size.width, depth=size.depth, output_width=2 * size.width)


def _pixelcnn_pp(grid: Grid, size: Size) -> PixelCNNPPConfig:
    # A 1×1 map sees nothing above or left of it, and data-dependent gains cannot start from what does not vary.
    resolutions = max(1, min(3, min(grid.height, grid.width).bit_length() - 1))
    return PixelCNNPPConfig(
        grid=grid,
        width=size.width,
        blocks=size.depth,
        resolutions=resolutions,
        components=5,
        dropout=0.0,
    )


def _row_lstm(grid: Grid, size: Size) -> RowLSTMConfig:
    return RowLSTMConfig(grid=grid, width=size.width, depth=size.depth, output_width=2 * size.width)


def _diagonal_bilstm(grid: Grid, size: Size) -> DiagonalBiLSTMConfig:
    return DiagonalBiLSTMConfig(grid=grid, width=size.width, depth=size.depth, output_width=2 * size.width)


def _image_gpt(grid: Grid, size: Size) -> ImageGPTConfig:
    return ImageGPTConfig(grid=grid, width=size.width, depth=size.depth, heads=_heads(size.width))


def _prior(grid: Grid, size: Size) -> TransformerPriorConfig:
    return TransformerPriorConfig(
        grid=grid, width=size.width, depth=size.depth, heads=_heads(size.width), dropout=0.1
    )


def _gated_prior(grid: Grid, size: Size) -> GatedPixelCNNConfig:
    return GatedPixelCNNConfig(
        grid=grid,
        width=size.width,
        depth=size.depth,
        output_width=2 * size.width,
        input_kernel=5,
        embedding="learned",
    )


def _heads(width: int) -> int:
    """Heads of about 32 features, an even number that divides the width."""
    heads = max(1, width // 32)
    while width % (2 * heads):
        heads -= 1
    return max(1, heads)


FAMILIES: dict[str, Family] = {
    "pixelcnn": Family("PixelCNN", "subpixels", Size(64, 6), _pixelcnn),
    "gated-pixelcnn": Family("Gated PixelCNN", "subpixels", Size(48, 5), _gated_pixelcnn),
    "pixelcnn-pp": Family("PixelCNN++", "subpixels", Size(32, 1), _pixelcnn_pp),
    "row-lstm": Family("Row LSTM", "subpixels", Size(64, 4), _row_lstm),
    "diagonal-bilstm": Family("Diagonal BiLSTM", "subpixels", Size(64, 3), _diagonal_bilstm),
    "image-gpt": Family("ImageGPT", "palette", Size(128, 4), _image_gpt, learning_rate=1e-3),
    "vqvae-prior": Family("VQ-VAE + transformer", "codes", Size(128, 4), _prior, learning_rate=1e-3),
    "gated-prior": Family("VQ-VAE + Gated PixelCNN", "codes", Size(64, 5), _gated_prior),
}
"""Every family by the name that ``--models`` takes."""

ALSO_CALLED = {"pixelcnn++": "pixelcnn-pp"}


def family_named(name: str) -> str:
    """The name in ``FAMILIES`` that a flag means; InputError where there is none."""
    name = ALSO_CALLED.get(name, name)
    if name not in FAMILIES:
        raise InputError(f"model is {name!r}, expected one of {', '.join(FAMILIES)}")
    return name


def vqvae_config(channels: int, resolution: int) -> VQVAEConfig:
    """The VQ-VAE of a resolution: the smallest factor that leaves at most 8×8 codes, or else the largest, 16.

    So the code grid is 8×8 from 16 to 128 pixels a side, and 16×16 at 256.
    """
    fitting = [factor for factor in FACTORS if resolution <= CODE_ROWS * factor]
    factor: Any = fitting[0] if fitting else FACTORS[-1]
    return VQVAEConfig(
        channels=channels,
        factor=factor,
        quantizer=VectorQuantizerConfig(codebook_size=code_count(channels), code_width=32),
        autoencoder=ConvolutionalConfig(width=64),
        likelihood="logistic",
    )


def code_count(channels: int) -> int:
    """Codes in the VQ-VAE's codebook."""
    return 256 if channels == 3 else 64


def palette_colours(channels: int) -> int:
    """Colours of ImageGPT's palette."""
    return COLOURS if channels == 3 else GREYS


def symbol_grid(cell: Cell, channels: int) -> Grid:
    """The grid that a cell's model is a distribution over.

    Raises:
        InputError: The model cannot take the resolution.
    """
    symbols, side = FAMILIES[cell.family].symbols, cell.resolution
    if side < 2:
        raise InputError(f"resolution is {side}, expected 2 or more")
    if symbols == "subpixels":
        return Grid(channels, side, side, 256)
    if symbols == "palette":
        return Grid(1, side, side, palette_colours(channels))
    config = vqvae_config(channels, side)
    if side % config.factor:
        raise InputError(
            f"{cell.family} cannot take resolution {side}, which its VQ-VAE's factor {config.factor} does not "
            f"divide; {side // config.factor * config.factor or config.factor} would do"
        )
    return Grid(1, side // config.factor, side // config.factor, code_count(channels))


def check_cell(cell: Cell, channels: int) -> None:
    """Raise InputError unless the cell's model can be built for images with this many channels."""
    grid = symbol_grid(cell, channels)
    try:
        FAMILIES[cell.family].config(grid, cell.size)
    except InputError as error:
        raise InputError(
            f"{cell.family} of size {cell.size} at resolution {cell.resolution}: {error}"
        ) from None


def batch_size(symbols: Symbols, resolution: int) -> int:
    """Images a training step. A pixel-level model takes fewer large ones, since it holds 256 logits a subpixel."""
    if symbols == "codes":
        return 32 if resolution <= 64 else 16
    return max(2, min(32, 32 * 32**2 // resolution**2))


PRIOR_BATCH = 64
"""Code grids in a training step of the second stage."""


def score_batch(resolution: int) -> int:
    """Images scored at once: fewer where they are large. Nothing is kept for a backward pass."""
    return max(1, min(16, 16 * 64**2 // resolution**2))
