"""Standard error, whose reader may leave at any time: a closed terminal, a killed `tee`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def notify(message: str) -> None:
    """A line on standard error, if somebody reads it."""
    with ignore_closed_stderr():
        print(message, file=sys.stderr, flush=True)


@contextmanager
def ignore_closed_stderr() -> Iterator[None]:
    """Within the body, a standard error that nobody reads any more is no error."""
    try:
        yield
    except OSError:
        # What is still buffered must go somewhere too, or Python ends with a status of its own.
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())
