"""Trainings worth repeating: each recipe is a function that returns the whole configuration of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pixel_baselines.options import TrainPixel
from pixel_baselines.recipes import lossless, mnist_256, mnist_dynamic, rgb_32

Recipe = Callable[[], TrainPixel[Any]]

RECIPES: dict[str, dict[str, Recipe]] = {
    "mnist-dynamic-cpu": {
        "pixelcnn": mnist_dynamic.pixelcnn_cpu,
        "gated-pixelcnn": mnist_dynamic.gated_pixelcnn_cpu,
        "pixelcnn-pp": mnist_dynamic.pixelcnn_pp_cpu,
        "row-lstm": mnist_dynamic.row_lstm_cpu,
        "diagonal-bilstm": mnist_dynamic.diagonal_bilstm_cpu,
        "image-gpt": mnist_dynamic.image_gpt_cpu,
    },
    "mnist-dynamic-gpu": {
        "pixelcnn": mnist_dynamic.pixelcnn_gpu,
        "gated-pixelcnn": mnist_dynamic.gated_pixelcnn_gpu,
        "pixelcnn-pp": mnist_dynamic.pixelcnn_pp_gpu,
        "row-lstm": mnist_dynamic.row_lstm_gpu,
        "diagonal-bilstm": mnist_dynamic.diagonal_bilstm_gpu,
        "image-gpt": mnist_dynamic.image_gpt_gpu,
    },
    "mnist-256-cpu": {
        "pixelcnn": mnist_256.pixelcnn_cpu,
        "gated-pixelcnn": mnist_256.gated_pixelcnn_cpu,
        "pixelcnn-pp": mnist_256.pixelcnn_pp_cpu,
        "row-lstm": mnist_256.row_lstm_cpu,
        "diagonal-bilstm": mnist_256.diagonal_bilstm_cpu,
        "image-gpt": mnist_256.image_gpt_cpu,
    },
    "mnist-256-gpu": {
        "pixelcnn": mnist_256.pixelcnn_gpu,
        "gated-pixelcnn": mnist_256.gated_pixelcnn_gpu,
        "pixelcnn-pp": mnist_256.pixelcnn_pp_gpu,
        "row-lstm": mnist_256.row_lstm_gpu,
        "diagonal-bilstm": mnist_256.diagonal_bilstm_gpu,
        "image-gpt": mnist_256.image_gpt_gpu,
    },
    "rgb-32-cpu": {
        "pixelcnn": rgb_32.pixelcnn_cpu,
        "gated-pixelcnn": rgb_32.gated_pixelcnn_cpu,
        "pixelcnn-pp": rgb_32.pixelcnn_pp_cpu,
        "row-lstm": rgb_32.row_lstm_cpu,
        "diagonal-bilstm": rgb_32.diagonal_bilstm_cpu,
        "image-gpt": rgb_32.image_gpt_cpu,
    },
    "rgb-32-gpu": {
        "pixelcnn": rgb_32.pixelcnn_gpu,
        "gated-pixelcnn": rgb_32.gated_pixelcnn_gpu,
        "pixelcnn-pp": rgb_32.pixelcnn_pp_gpu,
        "row-lstm": rgb_32.row_lstm_gpu,
        "diagonal-bilstm": rgb_32.diagonal_bilstm_gpu,
        "image-gpt": rgb_32.image_gpt_gpu,
    },
    "mnist-lossless-cpu": {"pixelcnn-pp": lossless.mnist_cpu},
    "emoji-lossless-cpu": {"pixelcnn-pp": lossless.emoji_cpu},
    "photos-lossless-cpu": {"pixelcnn-pp": lossless.photos_cpu},
}
"""Every recipe by the name that ``--recipe`` takes, then by the model's."""

__all__ = ["RECIPES", "Recipe", "lossless", "mnist_256", "mnist_dynamic", "rgb_32"]
