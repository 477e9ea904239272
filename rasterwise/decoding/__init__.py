"""Autoregressive decoding; it knows no model class."""
