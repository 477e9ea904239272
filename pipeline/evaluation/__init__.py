"""Measures of tokenizers, models and samples."""
