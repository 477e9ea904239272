"""ImageGPT and its colour palette."""
