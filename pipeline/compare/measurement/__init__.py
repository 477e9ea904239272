"""Training and measuring the cells of a comparison."""
