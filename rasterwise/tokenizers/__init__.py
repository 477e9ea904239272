"""What a tokenizer is."""
