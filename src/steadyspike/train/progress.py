"""Progress on standard error: a bar on a terminal, else a plain line every half minute."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from steadyspike.console import ignore_closed_stderr, notify
from steadyspike.train.history import EpochRow

REFRESH_SECONDS = 0.25  # between updates of the bar, each of which waits for the device
LINE_SECONDS = 30.0  # between plain lines within an epoch


class TrainingDisplay:
    """Shows loss, accuracy, images per second and time left, unless ``quiet``.

    ``done`` are the batches finished before a resume.
    """

    def __init__(
        self, title: str, epochs: int, batches: int, done: int, *, quiet: bool = False
    ) -> None:
        self.title, self.epochs, self.batches = title, epochs, batches
        self.quiet = quiet
        self.terminal = sys.stderr.isatty() and not quiet
        self.interval = REFRESH_SECONDS if self.terminal else LINE_SECONDS
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.terminal,
            transient=True,
        )
        self.task = self.progress.add_task(
            title, total=epochs * batches, completed=done, numbers="batches"
        )
        self.began = self.last = time.monotonic()
        self.images = 0
        self.done = self.at_start = done

    def __enter__(self) -> Self:
        with ignore_closed_stderr():
            self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with ignore_closed_stderr():
            self.progress.stop()

    def advance(self, images: int) -> bool:
        """Count a batch of ``images``; True if it is time to `show` new numbers."""
        self.images += images
        self.done += 1
        return not self.quiet and time.monotonic() - self.last >= self.interval

    def show(self, epoch: int, loss: float, accuracy: float) -> None:
        """Show the loss and accuracy (percent) of epoch ``epoch`` (from 1) so far."""
        self.last = time.monotonic()
        seconds = self.last - self.began
        rate = self.images / seconds
        numbers = (
            f"epoch {epoch}/{self.epochs}  loss {loss:.3f}  accuracy {accuracy:.1f} %  "
            f"{rate:,.0f} images/s"
        )
        if self.terminal:
            with ignore_closed_stderr():
                self.progress.update(self.task, completed=self.done, numbers=numbers)
        else:
            total = self.epochs * self.batches
            left = seconds / (self.done - self.at_start) * (total - self.done)
            self._line(f"{self.title}  {numbers}  {_clock(left)} left")

    def finish_epoch(self, row: EpochRow) -> None:
        """A permanent line for a finished epoch."""
        rate = self.images / (time.monotonic() - self.began)
        self._line(
            f"{self.title}  epoch {row.epoch}/{self.epochs}  loss {row.train_loss:.3f}  "
            f"accuracy {row.train_accuracy:.1f} %  test {row.test_accuracy:.2f} %  "
            f"{rate:,.0f} images/s"
        )
        self.last = time.monotonic()

    def _line(self, text: str) -> None:
        if self.terminal:
            with ignore_closed_stderr():
                self.console.print(text, markup=False)
        elif not self.quiet:
            notify(text)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
