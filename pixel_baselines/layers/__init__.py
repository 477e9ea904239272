"""Layers that the pixel-level models share."""
