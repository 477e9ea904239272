"""Commands about text and images."""
