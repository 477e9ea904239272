"""The pixel-level baselines."""

from pixel_baselines.diagonal_bilstm import DiagonalBiLSTM, DiagonalBiLSTMConfig
from pixel_baselines.gated_pixelcnn import GatedPixelCNN, GatedPixelCNNConfig
from pixel_baselines.image_gpt import ImageGPT, ImageGPTConfig
from pixel_baselines.linear_probe import LinearProbeReport, probe_layers
from pixel_baselines.palette import PaletteConfig, PaletteTokenizer
from pixel_baselines.pixelcnn import PixelCNN, PixelCNNConfig
from pixel_baselines.pixelcnn_pp import PixelCNNPP, PixelCNNPPConfig
from pixel_baselines.row_lstm import RowLSTM, RowLSTMConfig

__all__ = [
    "DiagonalBiLSTM",
    "DiagonalBiLSTMConfig",
    "GatedPixelCNN",
    "GatedPixelCNNConfig",
    "ImageGPT",
    "ImageGPTConfig",
    "LinearProbeReport",
    "PaletteConfig",
    "PaletteTokenizer",
    "PixelCNN",
    "PixelCNNConfig",
    "PixelCNNPP",
    "PixelCNNPPConfig",
    "RowLSTM",
    "RowLSTMConfig",
    "probe_layers",
]
