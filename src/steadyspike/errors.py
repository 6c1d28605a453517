"""The exception for mistakes of the user."""


class UserError(Exception):
    """A user's mistake; the message is one line that names file, key and expectation.

    The command line prints the message on standard error and exits with ``exit_status``.
    """

    exit_status = 2
