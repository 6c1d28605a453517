"""The exception for mistakes of the user."""


class UserError(Exception):
    """A user's mistake; the message is one line that names file, key and expectation.

    The command line prints the message on standard error and exits with ``exit_status``.
    """

    exit_status = 2


def reason(error: BaseException) -> str:
    """The first line of an exception's message, or its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The type of an exception and the first line of its message, at most 300 characters."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:300]
