"""Training in processes of their own, stopped in every way; SIGINT in ../test_bad_input.py."""

import os
import pty
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tiny import command, environment, make_project, outputs, start, trained


def stop_by_signal(root: Path, number: int) -> tuple[int, str]:
    """Train until an epoch is over and a random moment longer, then send a signal."""
    with start(root, "train", "tiny") as process:
        assert process.stderr is not None
        assert any("  test " in line for line in process.stderr), "no epoch was finished"
        time.sleep(random.uniform(0, 0.1))  # an epoch takes about as long
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        return process.returncode, err


def stop_by_time(root: Path) -> tuple[int, str]:
    stopped = command(root, "train", "tiny", "--stop-after", "0s")
    return stopped.returncode, stopped.stderr


def close_the_terminal(root: Path, *through: str) -> int:
    """Train on a terminal that is closed after an epoch: the exit status."""
    child, terminal = pty.fork()
    if child == 0:
        train = (sys.executable, "-m", "steadyspike", "train", "tiny")
        os.chdir(root)
        os.execvpe("env", ["env", *through, *train], environment(TERM="xterm"))
    shown = b""
    while b"  test " not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_process_stopped_in_every_way_ends_with_the_same_bytes(tmp_path: Path) -> None:
    random.seed()
    make_project(tmp_path)
    folder = tmp_path / "runs" / "tiny"
    status, _ = stop_by_signal(tmp_path, signal.SIGKILL)
    assert status == -signal.SIGKILL
    left = {path.name.removeprefix(".").removesuffix(".tmp") for path in folder.glob("*.*")}
    assert left <= {"checkpoint.pt", "checkpoint-before.pt", "environment.json"}
    for stop in (lambda root: stop_by_signal(root, signal.SIGTERM), stop_by_time):
        status, err = stop(tmp_path)
        assert status == 143
        assert err.splitlines()[-1] == (
            "steadyspike: tiny stopped; the same command goes on from runs/tiny/checkpoint.pt"
        )
        assert "Traceback" not in err
        assert (folder / "checkpoint.pt").is_file()
        assert not (folder / "model.safetensors").exists()
    assert close_the_terminal(tmp_path) == 128 + signal.SIGHUP
    last = command(tmp_path, "train", "tiny", "--stop-after", "1h")
    assert last.returncode == 0, last.stderr
    assert "epoch 1/8" not in last.stderr
    assert outputs(folder) == outputs(trained() / "runs" / "tiny")
    assert not (folder / "checkpoint.pt").exists()


@pytest.mark.slow
def test_output_that_nobody_reads_any_more_does_not_stop_training(tmp_path: Path) -> None:
    """The closed terminal of a process that ignores SIGHUP, as under `nohup`; a killed `tee`."""
    make_project(tmp_path / "nohup")
    make_project(tmp_path / "tee")
    with start(tmp_path / "tee", "train", "tiny") as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()
        assert close_the_terminal(tmp_path / "nohup", "--ignore-signal=HUP") == 0
        assert process.wait(120) == 0
    for root in ("nohup", "tee"):
        assert outputs(tmp_path / root / "runs/tiny") == outputs(trained() / "runs/tiny")
