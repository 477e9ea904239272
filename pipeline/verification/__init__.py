"""What must hold for every model and tokenizer, as functions that the tests and ``rasterwise verify`` call."""
