"""Tokenizers that others trained, read into ours."""
