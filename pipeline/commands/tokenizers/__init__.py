"""Commands of tokenizers alone."""
