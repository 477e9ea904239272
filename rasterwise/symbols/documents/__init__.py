"""Documents: text and images as one sequence of ids, and the grammar that says which may follow."""
