"""Lossless compression: a range coder that a model's decoder gives the probabilities."""
