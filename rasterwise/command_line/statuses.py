"""The exit statuses of all commands."""

FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130
SIGNALLED = 128
"""Added to the number of the signal that stopped a command."""
