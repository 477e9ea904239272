"""The pixel-level baselines."""

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
