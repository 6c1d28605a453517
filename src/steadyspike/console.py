"""Messages on standard error, which may be closed: a closed terminal, a killed `tee`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def notify(message: str) -> None:
    """Print a line on standard error; ignored if it is closed."""
    with ignore_closed_stderr():
        print(message, file=sys.stderr, flush=True)


@contextmanager
def ignore_closed_stderr() -> Iterator[None]:
    """Within the body, errors of a closed standard error are ignored."""
    try:
        yield
    except OSError:
        # Buffered text would fail again at exit, and change the exit status.
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())
