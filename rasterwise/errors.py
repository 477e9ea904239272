"""The one error that a user can mend."""


class InputError(ValueError):
    """Input that cannot be used: the message names what came, what was expected, and the mend.

    Commands print the message alone and end with status 2; any other exception is a defect of ours and
    keeps its traceback.
    """


class NonFiniteError(ArithmeticError):
    """A quantity became infinite or not a number; the message names it and the step."""
