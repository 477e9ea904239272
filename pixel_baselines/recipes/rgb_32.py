"""Recipes for 32×32 RGB images, CIFAR-10 unless another dataset is named.

None of them has been run yet. The ``_gpu`` recipes are the papers' CIFAR-10 models (for Gated PixelCNN the
one of 32×32 ImageNet, the only one whose size its paper gives), with the papers' batch sizes; the optimizer is
AdamW in all of them.
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

RGB = Grid(3, 32, 32, 256)
PALETTE = Grid(1, 32, 32, 512)


def on_rgb(model: Any, training: TrainingConfig, palette: int = 0) -> TrainPixel[Any]:
    """The training of a model on 32×32 RGB images, as 256 levels a subpixel or as palette colours."""
    return TrainPixel(
        model=model,
        output=Path("runs/rgb-32"),
        data=DataConfig(dataset="uoft-cs/cifar10", size=32, colour="rgb"),
        palette=palette,
        training=training,
    )


def pixelcnn_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe rgb-32-cpu --model pixelcnn --dataset DATA``
    """
    return on_rgb(
        PixelCNNConfig(grid=RGB, blocks=8, width=96, output_width=96),
        TrainingConfig(steps=6000, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=1500),
    )


def gated_pixelcnn_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe rgb-32-cpu --model gated-pixelcnn --dataset DATA``
    """
    return on_rgb(
        GatedPixelCNNConfig(grid=RGB, depth=8, width=48, output_width=96),
        TrainingConfig(
            steps=6000, batch_size=32, learning_rate=2e-3, precision="bf16", compile=True, evaluate_every=1500
        ),
    )


def pixelcnn_pp_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe rgb-32-cpu --model pixelcnn-pp --dataset DATA``
    """
    return on_rgb(
        PixelCNNPPConfig(grid=RGB, width=48, blocks=2, components=10, dropout=0.1),
        TrainingConfig(steps=5000, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=1250),
    )


def row_lstm_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe rgb-32-cpu --model row-lstm --dataset DATA``
    """
    return on_rgb(
        RowLSTMConfig(grid=RGB, depth=4, width=96, output_width=96),
        TrainingConfig(steps=4000, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=1000),
    )


def diagonal_bilstm_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe rgb-32-cpu --model diagonal-bilstm --dataset DATA``
    """
    return on_rgb(
        DiagonalBiLSTMConfig(grid=RGB, depth=3, width=96, output_width=96),
        TrainingConfig(steps=3000, batch_size=32, learning_rate=2e-3, precision="bf16", evaluate_every=750),
    )


def image_gpt_cpu() -> TrainPixel[Any]:
    """Not yet run.

    ``rasterwise train pixel --recipe rgb-32-cpu --model image-gpt --dataset DATA``
    """
    return on_rgb(
        ImageGPTConfig(grid=PALETTE, depth=4, width=128, heads=4),
        TrainingConfig(
            steps=3000,
            batch_size=16,
            learning_rate=2e-3,
            warmup_steps=200,
            precision="bf16",
            evaluate_every=750,
        ),
        palette=512,
    )


def pixelcnn_gpu() -> TrainPixel[Any]:
    """The paper's: 15 blocks, h = 128, batches of 16. Not yet run.

    ``rasterwise train pixel --recipe rgb-32-gpu --model pixelcnn --dataset DATA``
    """
    return on_rgb(
        PixelCNNConfig(grid=RGB, blocks=15, width=256, output_width=1024),
        TrainingConfig(steps=300000, batch_size=16, learning_rate=5e-4, precision="bf16", compile=True),
    )


def gated_pixelcnn_gpu() -> TrainPixel[Any]:
    """The paper's for ImageNet: 20 layers of 384, 5×5, batches of 128, 200,000 updates. Not yet run.

    ``rasterwise train pixel --recipe rgb-32-gpu --model gated-pixelcnn --dataset DATA``
    """
    return on_rgb(
        GatedPixelCNNConfig(grid=RGB, depth=20, width=384, kernel=5),
        TrainingConfig(steps=200000, batch_size=128, learning_rate=5e-4, precision="bf16", compile=True),
    )


def pixelcnn_pp_gpu() -> TrainPixel[Any]:
    """The paper's: 160 features, 5 blocks a resolution, 10 logistics, dropout 0.5. Not yet run.

    ``rasterwise train pixel --recipe rgb-32-gpu --model pixelcnn-pp --dataset DATA``
    """
    return on_rgb(
        PixelCNNPPConfig(grid=RGB, width=160, blocks=5, components=10, dropout=0.5),
        TrainingConfig(
            steps=300000, batch_size=128, learning_rate=1e-3, precision="bf16", compile=True, ema_decay=0.9995
        ),
    )


def row_lstm_gpu() -> TrainPixel[Any]:
    """The paper's: 12 layers, h = 128, batches of 16. Not yet run.

    ``rasterwise train pixel --recipe rgb-32-gpu --model row-lstm --dataset DATA``
    """
    return on_rgb(
        RowLSTMConfig(grid=RGB, depth=12, width=256, output_width=1024),
        TrainingConfig(steps=300000, batch_size=16, learning_rate=5e-4, precision="bf16"),
    )


def diagonal_bilstm_gpu() -> TrainPixel[Any]:
    """The paper's: 12 layers, h = 128, batches of 16. Not yet run.

    ``rasterwise train pixel --recipe rgb-32-gpu --model diagonal-bilstm --dataset DATA``
    """
    return on_rgb(
        DiagonalBiLSTMConfig(grid=RGB, depth=12, width=256, output_width=1024),
        TrainingConfig(steps=300000, batch_size=16, learning_rate=5e-4, precision="bf16"),
    )


def image_gpt_gpu() -> TrainPixel[Any]:
    """The paper's iGPT-S: 24 layers of 512, 8 heads, 512 colours, batches of 128. Not yet run.

    ``rasterwise train pixel --recipe rgb-32-gpu --model image-gpt --dataset DATA``
    """
    return on_rgb(
        ImageGPTConfig(grid=PALETTE, depth=24, width=512, heads=8),
        TrainingConfig(
            steps=1000000,
            batch_size=128,
            learning_rate=3e-3,
            warmup_steps=390,
            precision="bf16",
            compile=True,
        ),
        palette=512,
    )
