"""Recipes for lossless compression: small PixelCNN++ with means relative to neighbouring pixels.

docs/compression.md has what their files take beside PNG, WebP and JPEG XL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixel_baselines.options import TrainPixel
from pixel_baselines.pixelcnn_pp.network import PixelCNNPPConfig
from rasterwise.data.augmentation import Augmentation
from rasterwise.data.config import DataConfig
from rasterwise.symbols.grid import Grid
from rasterwise.training.config import TrainingConfig


def lossless(
    grid: Grid, data: DataConfig, training: TrainingConfig, width: int = 32, flip: bool = True
) -> TrainPixel[Any]:
    """The training of a small PixelCNN++ of differences."""
    return TrainPixel(
        model=PixelCNNPPConfig(grid=grid, width=width, blocks=1, dropout=0.0, relative_means=True),
        output=Path("runs/lossless"),
        data=data,
        augmentation=Augmentation(flip=flip),
        training=training,
    )


def mnist_cpu() -> TrainPixel[Any]:
    """MNIST at 256 levels. 1.200 bits a pixel at step 1,000; not yet run to its end.

    ``rasterwise train pixel --recipe mnist-lossless-cpu --model pixelcnn-pp --dataset DATA``
    """
    return lossless(
        Grid(1, 28, 28, 256),
        DataConfig(dataset="ylecun/mnist"),
        TrainingConfig(steps=4000, batch_size=16, learning_rate=2e-3, evaluate_every=1000),
        width=24,
        flip=False,
    )


def emoji_cpu() -> TrainPixel[Any]:
    """Emoji of 32×32 on white: 1.587 bits a subpixel, in about 50 minutes on one core.

    ``rasterwise train pixel --recipe emoji-lossless-cpu --model pixelcnn-pp --dataset DATA``
    """
    return lossless(
        Grid(3, 32, 32, 256),
        DataConfig(dataset="emoji-32", colour="rgb"),
        TrainingConfig(steps=9000, batch_size=8, learning_rate=1.5e-3, evaluate_every=900),
    )


def photos_cpu() -> TrainPixel[Any]:
    """Pieces of 64×64 of photographs of 128×128, box-filtered from 256×256, which sheds the blocks of JPEG.

    2.899 bits a subpixel of ten held-out pieces at step 2,500, after 25 minutes on one core; not yet run to its end.

    ``rasterwise train pixel --recipe photos-lossless-cpu --model pixelcnn-pp --dataset DATA``
    """
    return lossless(
        Grid(3, 64, 64, 256),
        DataConfig(dataset="photo-crops", colour="rgb"),
        TrainingConfig(steps=5000, batch_size=4, learning_rate=1.5e-3, evaluate_every=500),
    )
