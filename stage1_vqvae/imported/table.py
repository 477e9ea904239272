"""The one table of tokenizers that others trained and that are no case of ours; ``rasterwise`` offers ``__all__``."""

from __future__ import annotations

from rasterwise.tokenizers.image import ImageTokenizer
from stage1_vqvae.imported.emu3 import Emu3Tokenizer, Emu3TokenizerConfig

__all__ = ["Emu3Tokenizer", "Emu3TokenizerConfig"]

IMPORTED: dict[str, type[ImageTokenizer]] = {"emu3": Emu3Tokenizer}
"""Each by its kind."""
