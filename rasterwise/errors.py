"""The errors that commands report in one line."""


class InputError(ValueError):
    """Input that cannot be used: the message names what came, what was expected, and how to mend it.

    Commands print the message alone and end with status 2. Most other exceptions are defects of this library and
    keep their traceback.
    """


class NonFiniteError(ArithmeticError):
    """A quantity became infinite or not a number; the message names it and the step."""
