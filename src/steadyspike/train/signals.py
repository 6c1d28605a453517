"""Stops training on a signal or deadline at the end of a batch, with a checkpoint."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, the signal of job queues, and a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Training ended early, on request, with its checkpoint written."""

    def __init__(self, exit_status: int) -> None:
        super().__init__()
        self.exit_status = exit_status


class StopRequest:
    """Whether a signal or the deadline has asked training to stop.

    Args:
        deadline: on the clock of `time.monotonic`, or None; it counts as SIGTERM.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.signal: int | None = None

    @property
    def exit_status(self) -> int | None:
        """128 + the signal's number, or None."""
        if self.signal is not None:
            return 128 + self.signal
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return 128 + signal.SIGTERM if late else None


@contextmanager
def stop_request(deadline: float | None = None) -> Iterator[StopRequest]:
    """Within the body `SIGNALS` are only recorded; a second SIGINT interrupts at once."""
    request = StopRequest(deadline)

    def record(number: int, _: FrameType | None) -> None:
        if request.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = number

    before = {number: signal.getsignal(number) for number in SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]  # nohup: training outlives its terminal
    for number in before:
        signal.signal(number, record)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
