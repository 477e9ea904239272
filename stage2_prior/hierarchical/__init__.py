"""A prior over two grids of codes: the top one, then the bottom one given the top one."""
