import os
import pty
import sys

import pytest

from steadyspike.train import progress
from steadyspike.train.history import EpochRow
from steadyspike.train.progress import TrainingDisplay

ROW = EpochRow(
    epoch=1,
    learning_rate=0.1,
    train_loss=1.5,
    train_accuracy=40.0,
    test_loss=1.4,
    test_accuracy=43.21,
    osr_fallbacks=0,
)


class Clock:
    """A stand-in for the module `time` whose clock is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_plain_lines_say_where_it_stands(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingDisplay("osr", epochs=3, batches=10, done=10) as display:
        clock.now += 29
        assert not display.advance(50)
        clock.now += 1
        assert display.advance(50)
        display.show(2, 1.2345, 56.78)
        assert not display.advance(50)  # the next line is half a minute away
        clock.now += 10
        display.finish_epoch(ROW)
    out, err = capsys.readouterr()
    assert out == ""
    # 2 batches of 50 in 30 s, and 18 of 30 batches to go
    assert err.splitlines() == [
        "osr  epoch 2/3  loss 1.234  accuracy 56.8 %  3 images/s  4:30 left",
        "osr  epoch 1/3  loss 1.500  accuracy 40.0 %  test 43.21 %  4 images/s",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600 * 26 + 62, "26:01:02")]
)
def test_times(seconds: float, shown: str) -> None:
    assert progress._clock(seconds) == shown


def test_a_terminal_gets_a_bar_and_lasting_lines(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with TrainingDisplay("os[r]", epochs=2, batches=4, done=0) as display:
            clock.now += 1
            assert display.advance(50)
            display.show(1, 2.0, 10.0)
            display.progress.refresh()
            display.finish_epoch(ROW)
        terminal.flush()
        shown = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert "1/8" in shown
    assert "50 images/s" in shown
    assert "os[r]  epoch 1/2  loss 1.500  accuracy 40.0 %  test 43.21 %" in shown
