"""Stops training on a signal or deadline at the end of a batch, with a checkpoint.

A signal handler of Python runs only between two of its instructions, so a thread watches too: what
waits for images or for another process, or takes too long, is ended within `LIMIT` seconds.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from steadyspike.console import notify

#: Ctrl-C, the signal of job queues, and a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DAY = 86400.0  # seconds; `select` refuses an infinite timeout, as of an infinite deadline
GRACE, LIMIT = 5.5, 7.5  # seconds from the signal: for the current batch; for everything


class Stopped(Exception):
    """Training ended early, on request, with its checkpoint written."""

    def __init__(self, exit_status: int) -> None:
        super().__init__()
        self.exit_status = exit_status


class Overdue(BaseException):
    """The batch did not end in time; raised wherever the main thread is."""


class StopRequest:
    """Whether a signal or the deadline has asked training to stop.

    Args:
        deadline: on the clock of `time.monotonic`, or None; it counts as SIGTERM.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.signal: int | None = None
        self.ended = threading.Event()
        self._saving = False

    @property
    def exit_status(self) -> int | None:
        """128 + the signal's number, or None."""
        if self.signal is not None:
            return 128 + self.signal
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return 128 + signal.SIGTERM if late else None

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While the body writes a checkpoint, nothing interrupts it, however long it takes."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """Handler of `SIGNALS` and, once the batch is overdue, of SIGALRM."""
        if number == signal.SIGALRM:
            if not self._saving and not self.ended.is_set():
                raise Overdue
            return
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def hurry(self, number: int) -> None:
        """After signal ``number``: interrupt a body that goes on, then end the process."""
        if self.ended.wait(GRACE):
            return
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        if self.ended.wait(LIMIT - GRACE):
            return
        while self._saving:
            if self.ended.wait(0.1):
                return
        notify(
            f"steadyspike: ended {LIMIT} s after signal {number}, in the middle of a batch;"
            " the same command goes on from the last checkpoint"
        )
        os._exit(128 + number)


@contextmanager
def stop_request(deadline: float | None = None) -> Iterator[StopRequest]:
    """Within the body `SIGNALS` are only recorded; a second SIGINT interrupts at once.

    If the body goes on for `GRACE` seconds after the first one, or after the deadline, it is
    interrupted by `Overdue`; after `LIMIT` seconds, the process ends.
    """
    request = StopRequest(deadline)
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]  # nohup: training outlives its terminal
    alarm = before.pop(signal.SIGALRM)
    signal.signal(signal.SIGALRM, request.handle)
    with on_arrival(request.hurry, request.ended, deadline):
        for number in before:
            signal.signal(number, request.handle)
        try:
            yield request
        finally:
            request.ended.set()
            for number, handler in before.items():
                signal.signal(number, handler)
    signal.signal(signal.SIGALRM, alarm)


@contextmanager
def on_arrival(
    act: Callable[[int], None], ended: threading.Event, deadline: float | None = None
) -> Iterator[None]:
    """Within the body the first of `SIGNALS` makes a thread call ``act`` with its number.

    So does the deadline, with SIGTERM. A signal counts if Python handles it, even while the main
    thread executes no Python. ``ended`` is set at the end; ``act`` must then return soon.
    """
    arrivals, sender = os.pipe()  # Python writes the number of each signal to it
    os.set_blocking(sender, False)

    def watch() -> None:
        while not ended.is_set():
            left = DAY if deadline is None else min(max(0.0, deadline - time.monotonic()), DAY)
            if not select.select([arrivals], [], [], left)[0]:
                if deadline is None or time.monotonic() < deadline:
                    continue
                return act(signal.SIGTERM)
            (number,) = os.read(arrivals, 1)
            if number in SIGNALS:
                return act(number)
        return None

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.write(sender, b"\0")  # wakes the watcher
        watcher.join()
        os.close(arrivals)
        os.close(sender)
