"""What the cached decoders of masked convolutions share."""
