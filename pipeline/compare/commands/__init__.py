"""The commands ``rasterwise compare …``."""
