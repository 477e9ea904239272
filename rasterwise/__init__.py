"""Autoregressive image models, pixel by pixel and token by token, behind one exact likelihood.

Everything that a program of yours needs is here: ``from rasterwise import ImagePipeline, Sampling``. Each name is
loaded when it is first used, and this is the one module that looks at the floors above.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "rasterwise.errors": ("InputError", "NonFiniteError"),
    "rasterwise.symbols.grid": ("Grid",),
    "rasterwise.symbols.condition": ("Condition",),
    "rasterwise.symbols.documents.document": ("Document", "ImageSegment", "TextSegment"),
    "rasterwise.symbols.documents.grammar": ("Grammar",),
    "rasterwise.symbols.text": ("TextBatch",),
    "rasterwise.decoding.sampling": ("Sampling",),
    "rasterwise.decoding.decoder": ("Decoder",),
    "rasterwise.models.autoregressive": ("AutoregressiveConfig", "AutoregressiveModel"),
    "rasterwise.tokenizers.image": ("ImageTokenizer",),
    "rasterwise.tokenizers.pixels": ("PixelTokenizer", "PixelTokenizerConfig"),
    "rasterwise.tokenizers.text": ("TextTokenizer", "TextTokenizerConfig"),
    "pixel_baselines": (
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
    ),
    "stage1_vqvae": (
        "VQVAE",
        "FSQConfig",
        "GumbelQuantizerConfig",
        "L2QuantizerConfig",
        "LFQConfig",
        "ResidualQuantizerConfig",
        "SimVQConfig",
        "VQVAEConfig",
        "VectorQuantizerConfig",
    ),
    "stage2_prior": ("TransformerPrior", "TransformerPriorConfig"),
    "pipeline.image_pipeline": ("ImagePipeline",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
