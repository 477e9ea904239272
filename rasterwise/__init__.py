"""The ground floor: images, symbols on a grid, exact likelihoods, samplers, training runs and model folders."""

__version__ = "0.1.0"
