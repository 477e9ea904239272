"""The transformer prior."""
