"""The one table of pixel-level models; what ``__all__`` names here, ``rasterwise`` offers."""

from __future__ import annotations

from typing import Any

from pixel_baselines.gated_pixelcnn.model import GatedPixelCNN
from pixel_baselines.gated_pixelcnn.network import GatedPixelCNNConfig
from pixel_baselines.image_gpt.model import ImageGPT
from pixel_baselines.image_gpt.network import ImageGPTConfig
from pixel_baselines.image_gpt.palette import PaletteConfig, PaletteTokenizer
from pixel_baselines.pixel_rnn.diagonal_bilstm import DiagonalBiLSTM
from pixel_baselines.pixel_rnn.diagonal_bilstm_layer import DiagonalBiLSTMConfig
from pixel_baselines.pixel_rnn.row_lstm import RowLSTM
from pixel_baselines.pixel_rnn.row_lstm_layer import RowLSTMConfig
from pixel_baselines.pixelcnn.model import PixelCNN
from pixel_baselines.pixelcnn.network import PixelCNNConfig
from pixel_baselines.pixelcnn_pp.model import PixelCNNPP
from pixel_baselines.pixelcnn_pp.network import PixelCNNPPConfig
from rasterwise.models.autoregressive import AutoregressiveModel

__all__ = [
    "DiagonalBiLSTM",
    "DiagonalBiLSTMConfig",
    "GatedPixelCNN",
    "GatedPixelCNNConfig",
    "ImageGPT",
    "ImageGPTConfig",
    "PaletteConfig",
    "PaletteTokenizer",
    "PixelCNN",
    "PixelCNNConfig",
    "PixelCNNPP",
    "PixelCNNPPConfig",
    "RowLSTM",
    "RowLSTMConfig",
]

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
