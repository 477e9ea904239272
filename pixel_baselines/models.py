"""The one table of pixel-level models."""

from __future__ import annotations

from typing import Any

from pixel_baselines.gated_pixelcnn.model import GatedPixelCNN
from pixel_baselines.image_gpt.model import ImageGPT
from pixel_baselines.pixel_rnn.diagonal_bilstm import DiagonalBiLSTM
from pixel_baselines.pixel_rnn.row_lstm import RowLSTM
from pixel_baselines.pixelcnn.model import PixelCNN
from pixel_baselines.pixelcnn_pp.model import PixelCNNPP
from rasterwise.models.autoregressive import AutoregressiveModel

MODELS: dict[str, type[AutoregressiveModel]] = {
    "pixelcnn": PixelCNN,
    "gated-pixelcnn": GatedPixelCNN,
    "pixelcnn-pp": PixelCNNPP,
    "row-lstm": RowLSTM,
    "diagonal-bilstm": DiagonalBiLSTM,
    "image-gpt": ImageGPT,
}
"""Every pixel-level model by the name that ``--model`` takes."""

DEFAULT_MODEL = "gated-pixelcnn"


def model_of(config: Any) -> AutoregressiveModel:
    """A new model of the class that a configuration belongs to."""
    model_class = next(one for one in MODELS.values() if one.config_class is type(config))
    return model_class(config)
