"""Models of images given texts."""
