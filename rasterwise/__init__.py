"""Autoregressive image models, pixel by pixel and token by token, behind one exact likelihood.

Everything that a program of yours needs is here: ``from rasterwise import ImagePipeline, Sampling``. A name is loaded
when it is first used, so that importing this package stays quick. The rooms say what they offer in the ``__all__`` of
their tables; ``__init__.pyi`` says the same to type checkers.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from rasterwise.rooms import load

__version__ = "0.1.0"

_MODULE_OF = {
    "InputError": "rasterwise.errors",
    "NonFiniteError": "rasterwise.errors",
    "Grid": "rasterwise.symbols.grid",
    "Condition": "rasterwise.symbols.condition",
    "Document": "rasterwise.symbols.documents.document",
    "ImageSegment": "rasterwise.symbols.documents.document",
    "TextSegment": "rasterwise.symbols.documents.document",
    "Grammar": "rasterwise.symbols.documents.grammar",
    "TextBatch": "rasterwise.symbols.text",
    "Sampling": "rasterwise.decoding.sampling",
    "Decoder": "rasterwise.decoding.decoder",
    "AutoregressiveConfig": "rasterwise.models.autoregressive",
    "AutoregressiveModel": "rasterwise.models.autoregressive",
    "ImageTokenizer": "rasterwise.tokenizers.image",
    "PixelTokenizer": "rasterwise.tokenizers.pixels",
    "PixelTokenizerConfig": "rasterwise.tokenizers.pixels",
    "TextTokenizer": "rasterwise.tokenizers.text",
    "TextTokenizerConfig": "rasterwise.tokenizers.text",
    "ImagePipeline": "pipeline.image_pipeline",
    "Verification": "pipeline.verification.verify",
    "verify": "pipeline.verification.verify",
}
_TABLES = (
    "pixel_baselines.models",
    "stage1_vqvae.autoencoders.table",
    "stage1_vqvae.imported.table",
    "stage1_vqvae.quantizers.table",
    "stage1_vqvae.tokenizers.table",
    "stage2_prior.models",
)
"""Modules whose whole ``__all__`` is offered: what is listed there is listed here."""


def _names() -> dict[str, str]:
    """Every name with the module that defines or lists it; loads all of the rooms."""
    return _MODULE_OF | {name: table for table in _TABLES for name in load(table).__all__}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_names())
    if name.startswith("_"):  # Python and its tools ask for many that are not there
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULE_OF.get(name) or _names().get(name)
    if module is None:
        close = get_close_matches(name, _names(), n=1, cutoff=0.7)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise AttributeError(f"rasterwise offers no {name!r}{meant} (dir(rasterwise) lists what there is)")
    value = globals()[name] = getattr(load(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_names()})
