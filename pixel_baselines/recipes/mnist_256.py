"""Recipes for MNIST at its full depth of 256 levels.

None of them has been run yet. The ``_gpu`` recipes take the sizes of the papers' CIFAR-10 models where the
papers have no MNIST model of 256 levels, which is all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixel_baselines.gated_pixelcnn.network import GatedPixelCNNConfig
from pixel_baselines.image_gpt.network import ImageGPTConfig
from pixel_baselines.options import TrainPixel
from pixel_baselines.pixel_rnn.diagonal_bilstm_layer import DiagonalBiLSTMConfig
from pixel_baselines.pixel_rnn.row_lstm_layer import RowLSTMConfig
from pixel_baselines.pixelcnn.network import PixelCNNConfig
from pixel_baselines.pixelcnn_pp.network import PixelCNNPPConfig
from rasterwise.data.config import DataConfig
from rasterwise.symbols.grid import Grid
from rasterwise.training.config import TrainingConfig

LEVELS = Grid(1, 28, 28, 256)


def on_levels(model: Any, training: TrainingConfig) -> TrainPixel[Any]:
    """The training of a model on MNIST at 256 levels."""
    return TrainPixel(
        model=model,
        output=Path("runs/mnist-256"),
        data=DataConfig(dataset="ylecun/mnist"),
        training=training,
    )


def pixelcnn_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-cpu --model pixelcnn --dataset DATA``
    """
    return on_levels(
        PixelCNNConfig(grid=LEVELS, blocks=12, width=64, output_width=64),
        TrainingConfig(steps=6000, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=1500),
    )


def gated_pixelcnn_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-cpu --model gated-pixelcnn --dataset DATA``
    """
    return on_levels(
        GatedPixelCNNConfig(grid=LEVELS, depth=8, width=32, output_width=64),
        TrainingConfig(
            steps=10000,
            batch_size=32,
            learning_rate=2e-3,
            precision="bf16",
            compile=True,
            evaluate_every=2500,
        ),
    )


def pixelcnn_pp_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-cpu --model pixelcnn-pp --dataset DATA``
    """
    return on_levels(
        PixelCNNPPConfig(grid=LEVELS, width=24, blocks=1, components=10, dropout=0),
        TrainingConfig(steps=6000, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=1500),
    )


def row_lstm_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-cpu --model row-lstm --dataset DATA``
    """
    return on_levels(
        RowLSTMConfig(grid=LEVELS, depth=4, width=64, output_width=64),
        TrainingConfig(steps=5000, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=1250),
    )


def diagonal_bilstm_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-cpu --model diagonal-bilstm --dataset DATA``
    """
    return on_levels(
        DiagonalBiLSTMConfig(grid=LEVELS, depth=3, width=48, output_width=48),
        TrainingConfig(steps=5000, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=1250),
    )


def image_gpt_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-cpu --model image-gpt --dataset DATA``
    """
    return on_levels(
        ImageGPTConfig(grid=LEVELS, depth=4, width=64, heads=2),
        TrainingConfig(
            steps=5000,
            batch_size=16,
            learning_rate=3e-3,
            warmup_steps=200,
            precision="bf16",
            evaluate_every=1250,
        ),
    )


def pixelcnn_gpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-gpu --model pixelcnn --dataset DATA``
    """
    return on_levels(
        PixelCNNConfig(grid=LEVELS, blocks=15, width=256, output_width=1024),
        TrainingConfig(steps=20000, batch_size=128, learning_rate=1e-3, precision="bf16", compile=True),
    )


def gated_pixelcnn_gpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-gpu --model gated-pixelcnn --dataset DATA``
    """
    return on_levels(
        GatedPixelCNNConfig(grid=LEVELS, depth=10, width=128),
        TrainingConfig(steps=20000, batch_size=128, learning_rate=1e-3, precision="bf16", compile=True),
    )


def pixelcnn_pp_gpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-gpu --model pixelcnn-pp --dataset DATA``
    """
    return on_levels(
        PixelCNNPPConfig(grid=LEVELS, width=160, blocks=5, dropout=0.5),
        TrainingConfig(
            steps=20000, batch_size=64, learning_rate=1e-3, precision="bf16", compile=True, ema_decay=0.9995
        ),
    )


def row_lstm_gpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-gpu --model row-lstm --dataset DATA``
    """
    return on_levels(
        RowLSTMConfig(grid=LEVELS, depth=12, width=256, output_width=1024),
        TrainingConfig(steps=40000, batch_size=16, learning_rate=1e-3, precision="bf16"),
    )


def diagonal_bilstm_gpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-gpu --model diagonal-bilstm --dataset DATA``
    """
    return on_levels(
        DiagonalBiLSTMConfig(grid=LEVELS, depth=12, width=256, output_width=1024),
        TrainingConfig(steps=40000, batch_size=16, learning_rate=1e-3, precision="bf16"),
    )


def image_gpt_gpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe mnist-256-gpu --model image-gpt --dataset DATA``
    """
    return on_levels(
        ImageGPTConfig(grid=LEVELS, depth=8, width=256, heads=8),
        TrainingConfig(
            steps=20000, batch_size=128, learning_rate=1e-3, warmup_steps=500, precision="bf16", compile=True
        ),
    )
