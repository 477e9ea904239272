"""Recipes for MNIST as bits, each pixel drawn as Bernoulli(intensity / 255) anew every time ("dynamic").

Scores are test nats an image with their standard error; the ``_cpu`` recipes were run on one core of the
machine that docs/experiments.md names. The ``_gpu`` recipes take the papers' sizes where the papers give them
for MNIST or CIFAR-10; none of them has been run yet. The optimizer is AdamW in all of them: the papers'
RMSProp rates were set by hand and are not in the papers.
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

BITS = Grid(1, 28, 28, 2)


def on_bits(model: Any, training: TrainingConfig) -> TrainPixel[Any]:
    """The training of a model on dynamic MNIST."""
    return TrainPixel(
        model=model,
        output=Path("runs/mnist-dynamic"),
        data=DataConfig(dataset="ylecun/mnist"),
        levels=2,
        dynamic=True,
        training=training,
    )


def pixelcnn_cpu() -> TrainPixel[Any]:
    """87.01 ± 0.21 nats, in 28 minutes on a core that it shared with other work.

    ``rasterwise train pixel --recipe mnist-dynamic-cpu --model pixelcnn --dataset DATA``
    """
    return on_bits(
        PixelCNNConfig(grid=BITS, blocks=12, width=64, output_width=64),
        TrainingConfig(steps=5000, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=2500),
    )


def gated_pixelcnn_cpu() -> TrainPixel[Any]:
    """79.98 ± 0.20 nats, in 60 minutes on one core.

    ``rasterwise train pixel --recipe mnist-dynamic-cpu --model gated-pixelcnn --dataset DATA``
    """
    return on_bits(
        GatedPixelCNNConfig(grid=BITS, depth=6, width=32, output_width=64, kernel=5, input_kernel=21),
        TrainingConfig(
            steps=13500,
            batch_size=32,
            learning_rate=2e-3,
            precision="bf16",
            compile=True,
            evaluate_every=4500,
        ),
    )


def pixelcnn_pp_cpu() -> TrainPixel[Any]:
    """81.33 ± 0.20 nats, in 11 minutes on one core.

    ``rasterwise train pixel --recipe mnist-dynamic-cpu --model pixelcnn-pp --dataset DATA``
    """
    return on_bits(
        PixelCNNPPConfig(grid=BITS, width=24, blocks=1, components=1, dropout=0),
        TrainingConfig(steps=2500, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=1250),
    )


def row_lstm_cpu() -> TrainPixel[Any]:
    """85.68 ± 0.21 nats, in 10 minutes on one core.

    ``rasterwise train pixel --recipe mnist-dynamic-cpu --model row-lstm --dataset DATA``
    """
    return on_bits(
        RowLSTMConfig(grid=BITS, depth=4, width=64, output_width=64),
        TrainingConfig(steps=2500, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=1250),
    )


def diagonal_bilstm_cpu() -> TrainPixel[Any]:
    """85.16 ± 0.21 nats, in 7 minutes on one core.

    ``rasterwise train pixel --recipe mnist-dynamic-cpu --model diagonal-bilstm --dataset DATA``
    """
    return on_bits(
        DiagonalBiLSTMConfig(grid=BITS, depth=3, width=48, output_width=48),
        TrainingConfig(steps=2200, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=1100),
    )


def image_gpt_cpu() -> TrainPixel[Any]:
    """85.83 ± 0.21 nats, in 40 minutes on one core.

    ``rasterwise train pixel --recipe mnist-dynamic-cpu --model image-gpt --dataset DATA``
    """
    return on_bits(
        ImageGPTConfig(grid=BITS, depth=4, width=64, heads=2),
        TrainingConfig(
            steps=11000,
            batch_size=8,
            learning_rate=2e-3,
            warmup_steps=300,
            precision="bf16",
            evaluate_every=5500,
        ),
    )


def pixelcnn_gpu() -> TrainPixel[Any]:
    """The depth and width of the paper's CIFAR-10 model. Not yet run.

    ``rasterwise train pixel --recipe mnist-dynamic-gpu --model pixelcnn --dataset DATA``
    """
    return on_bits(
        PixelCNNConfig(grid=BITS, blocks=15, width=256, output_width=256),
        TrainingConfig(steps=20000, batch_size=128, learning_rate=1e-3, precision="bf16", compile=True),
    )


def gated_pixelcnn_gpu() -> TrainPixel[Any]:
    """Ten layers of 128: the paper has no MNIST model. Not yet run.

    ``rasterwise train pixel --recipe mnist-dynamic-gpu --model gated-pixelcnn --dataset DATA``
    """
    return on_bits(
        GatedPixelCNNConfig(grid=BITS, depth=10, width=128),
        TrainingConfig(steps=20000, batch_size=128, learning_rate=1e-3, precision="bf16", compile=True),
    )


def pixelcnn_pp_gpu() -> TrainPixel[Any]:
    """The paper has no MNIST model; one logistic is any distribution of a bit. Not yet run.

    ``rasterwise train pixel --recipe mnist-dynamic-gpu --model pixelcnn-pp --dataset DATA``
    """
    return on_bits(
        PixelCNNPPConfig(grid=BITS, width=96, blocks=3, components=1, dropout=0.1),
        TrainingConfig(
            steps=20000, batch_size=128, learning_rate=1e-3, precision="bf16", compile=True, ema_decay=0.9995
        ),
    )


def row_lstm_gpu() -> TrainPixel[Any]:
    """The paper's MNIST model, h = 16 and 7 layers, at its batch size. Not yet run.

    ``rasterwise train pixel --recipe mnist-dynamic-gpu --model row-lstm --dataset DATA``
    """
    return on_bits(
        RowLSTMConfig(grid=BITS, depth=7, width=32, output_width=32),
        TrainingConfig(steps=100000, batch_size=16, learning_rate=1e-3),
    )


def diagonal_bilstm_gpu() -> TrainPixel[Any]:
    """The paper's MNIST model, h = 16 and 7 layers (79.20 nats on static bits), at its batch size. Not yet run.

    ``rasterwise train pixel --recipe mnist-dynamic-gpu --model diagonal-bilstm --dataset DATA``
    """
    return on_bits(
        DiagonalBiLSTMConfig(grid=BITS, depth=7, width=32, output_width=32),
        TrainingConfig(steps=100000, batch_size=16, learning_rate=1e-3),
    )


def image_gpt_gpu() -> TrainPixel[Any]:
    """Eight layers of 128: the paper has no MNIST model. Not yet run.

    ``rasterwise train pixel --recipe mnist-dynamic-gpu --model image-gpt --dataset DATA``
    """
    return on_bits(
        ImageGPTConfig(grid=BITS, depth=8, width=128, heads=4),
        TrainingConfig(
            steps=20000, batch_size=128, learning_rate=1e-3, warmup_steps=500, precision="bf16", compile=True
        ),
    )
