"""The folder of a run: its files, checkpoints and clock, and being asked to stop."""
