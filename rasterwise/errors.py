"""The errors that commands report in one line, or with a status of its own."""

from typing import Any

OUT_OF_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "not enough memory",
    "can't start new thread",
)
"""What torch, C++ and Python say, mostly in a RuntimeError."""


WITHOUT_MEMORY_FOR_A_KERNEL = "could not create a primitive"
"""All that oneDNN says; of what it does not support, it says more."""

READER_DIED = "a process that reads data has died ({}); --workers 0 reads in the command's own process"


class InputError(ValueError):
    """Input that cannot be used: the message names what came, what was expected, and how to mend it.

    Commands print the message alone and end with status 2. Most other exceptions are defects of this library and
    keep their traceback.
    """


class NonFiniteError(ArithmeticError):
    """A quantity became infinite or not a number; the message names it and the step."""


class UnfinishedError(Exception):
    """A command ends before its work is done, with a report and a status other than 0, but without a fault of its own.

    A training that was asked to stop, for one: ``train && encode`` must not go on with half a model.
    """

    def __init__(self, report: dict[str, Any], status: int) -> None:
        super().__init__(f"the work is not done; the exit status is {status}")
        self.report, self.status = report, status


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError | OSError):
        return False
    said = str(error)
    return any(words in said for words in OUT_OF_MEMORY) or said.endswith(WITHOUT_MEMORY_FOR_A_KERNEL)
