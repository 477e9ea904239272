"""What the models cost: ``python -m benchmarks.sampling`` and ``python -m benchmarks.training``."""
