"""Datasets of codes on disk."""
