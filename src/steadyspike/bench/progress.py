"""What the run is at, on standard error: one line that changes, or a line each."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from steadyspike.bench.measure import Show
from steadyspike.console import notify


@contextmanager
def progress() -> Iterator[Show]:
    """Yields the function that shows."""
    began = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda text: notify(f"{time.monotonic() - began:4.0f} s  {text}")
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda text: status.update(f"{time.monotonic() - began:.0f} s  {text}")
