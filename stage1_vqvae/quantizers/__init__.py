"""Quantizers: latents to codes and back."""
