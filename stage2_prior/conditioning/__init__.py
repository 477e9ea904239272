"""What text models share: their configuration and how they take a text."""
