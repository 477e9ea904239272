"""The one table of quantizers."""

from __future__ import annotations

from typing import TypeAlias

from stage1_vqvae.quantizers.fsq import FSQConfig
from stage1_vqvae.quantizers.vector import VectorQuantizerConfig

AnyQuantizerConfig: TypeAlias = VectorQuantizerConfig | FSQConfig
"""What a tokenizer's configuration may hold; files and flags are read as one of these, by ``kind``."""

QUANTIZERS: dict[str, type[AnyQuantizerConfig]] = {"ema": VectorQuantizerConfig, "fsq": FSQConfig}
"""Every quantizer by the name that ``--quantizer`` takes, which is its ``kind``."""

DEFAULT_QUANTIZER = "ema"
