"""What is modelled: grids of symbols, their orders, conditions and likelihoods."""
