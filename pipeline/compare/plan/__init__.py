"""Which cells a comparison has, and their budgets."""
