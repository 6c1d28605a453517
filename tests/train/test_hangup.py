"""Whoever watches a training may leave: the terminal closes, the reader of the log is killed."""

import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from tiny import command, contents, environment, make_project, start, trained

TIMES = {"environment.json", "timing.json"}
TRAIN = (sys.executable, "-m", "steadyspike", "train", "tiny")


def outcome(root: Path) -> dict[str, bytes]:
    files = contents(root / "runs" / "tiny")
    return {name: raw for name, raw in files.items() if Path(name).name not in TIMES}


def close_the_terminal(root: Path, *through: str) -> int:
    """Train on a terminal that is closed after an epoch: the exit status."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(root)
        os.execvpe("env", ["env", *through, *TRAIN], environment(TERM="xterm"))
    shown = b""
    while b"  test " not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_closed_terminal_stops_training_with_a_checkpoint(tmp_path: Path) -> None:
    make_project(tmp_path)
    assert close_the_terminal(tmp_path) == 128 + signal.SIGHUP
    assert (tmp_path / "runs/tiny/checkpoint.pt").is_file()
    last = command(tmp_path, "train", "tiny")
    assert last.returncode == 0, last.stderr
    assert "epoch 1/8" not in last.stderr
    assert outcome(tmp_path) == outcome(trained())


@pytest.mark.slow
def test_whoever_ignores_that_goes_on(tmp_path: Path) -> None:
    """As `nohup` does, which would also lead the output to a file."""
    make_project(tmp_path)
    assert close_the_terminal(tmp_path, "--ignore-signal=HUP") == 0
    assert outcome(tmp_path) == outcome(trained())


@pytest.mark.slow
def test_a_log_that_nobody_reads_any_more(tmp_path: Path) -> None:
    make_project(tmp_path)
    with start(tmp_path, "train", "tiny") as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()
        assert process.wait(120) == 0
    assert outcome(tmp_path) == outcome(trained())
