"""A run's folder, its stopwatch and its stop signal."""
