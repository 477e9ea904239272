"""Learned image tokenizers."""
