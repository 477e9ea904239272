"""Models of documents, text and images in one stream."""
