"""The page, tables and plots of a comparison."""
