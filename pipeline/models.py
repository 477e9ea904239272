"""Every model and tokenizer by its kind: the tables of the rooms, put together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from rasterwise.errors import InputError
from rasterwise.models.autoregressive import AutoregressiveModel
from rasterwise.models.pretrained import Pretrained, model_folder, read_kind
from rasterwise.tokenizers.image import ImageTokenizer

Model = TypeVar("Model", bound=Pretrained)


def tokenizer_classes() -> dict[str, type[ImageTokenizer]]:
    """Every tokenizer by its kind."""
    from pixel_baselines.image_gpt.palette import PaletteTokenizer
    from rasterwise.tokenizers.pixels import PixelTokenizer
    from stage1_vqvae.imported.table import IMPORTED
    from stage1_vqvae.tokenizers.table import TOKENIZERS

    return {"pixels": PixelTokenizer, "palette": PaletteTokenizer, **TOKENIZERS, **IMPORTED}


def model_classes() -> dict[str, type[AutoregressiveModel]]:
    """Every autoregressive model by its kind."""
    from pixel_baselines.models import MODELS as PIXEL_MODELS
    from stage2_prior.models import MODELS as PRIORS

    return PRIORS | PIXEL_MODELS


def open_tokenizer(source: str | Path) -> ImageTokenizer:
    """Open any tokenizer's folder, a training run's folder, or a Hub id."""
    return _open(source, tokenizer_classes(), "tokenizer")


def open_model(source: str | Path) -> AutoregressiveModel:
    """Open any autoregressive model's folder, a training run's folder, or a Hub id."""
    return _open(source, model_classes(), "model")


def _open(source: str | Path, classes: Mapping[str, type[Model]], what: str) -> Model:
    kind = read_kind(source)
    if kind not in classes:
        raise InputError(f"{model_folder(source)} holds a {kind!r}, expected a {what}: {', '.join(classes)}")
    return classes[kind].from_pretrained(source)
