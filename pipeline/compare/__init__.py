"""Comparisons of models by resolution, size and family, measured alike and shown on one page."""
