"""Autoencoders: images to latents on the code grid, and back."""
