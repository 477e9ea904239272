"""Tokenizer and model as one object, the command line, evaluation and comparisons."""

from typing import Any

__all__ = ["ImagePipeline"]


def __getattr__(name: str) -> Any:
    """Load ImagePipeline, and torch with it, when it is first used: the bare command stays quick."""
    if name == "ImagePipeline":
        from pipeline.image_pipeline import ImagePipeline

        return ImagePipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
