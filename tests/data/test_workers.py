"""Workers that cannot go on end in one line, and leave no process behind."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from steadyspike.data import workers
from steadyspike.data.workers import filled
from steadyspike.errors import UserError
from tiny import environment, needs_mounting, one_line

PARTS = [[0, 1, 2], [], [3], [4, 5], [6], [7, 8]]


def no_process_is_left() -> bool:
    give_up = time.monotonic() + 5
    while multiprocessing.active_children() and time.monotonic() < give_up:
        time.sleep(0.01)
    return not multiprocessing.active_children()


def write_index(part: list[int], out: np.ndarray) -> None:
    for n, index in enumerate(part):
        out[n] = index


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_every_part_comes_in_order(count: int) -> None:
    arrays = [array.copy() for array in filled(write_index, PARTS, (2, 5), count)]
    assert [array.shape for array in arrays] == [(len(part), 2, 5) for part in PARTS]
    assert [np.unique(array).tolist() for array in arrays] == PARTS
    assert list(filled(write_index, [], (2, 5), count)) == []
    assert no_process_is_left()


def raising(error: Exception) -> Callable[[list[int], np.ndarray], None]:
    def fill(part: list[int], out: np.ndarray) -> None:
        raise error

    return fill


def test_what_a_worker_raises_ends_all() -> None:
    cases = {
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)): "Too many open files",
        MemoryError(): "MemoryError",
        RuntimeError("can't start new thread"): "can't start new thread",
    }
    for error, words in cases.items():
        with pytest.raises(UserError) as caught:
            list(filled(raising(error), PARTS, (2,), 2))
        one_line(caught.value, words, "STEADYSPIKE_WORKERS", "container more memory")
    with pytest.raises(UserError, match=r"^a bad image$"):
        list(filled(raising(UserError("a bad image")), PARTS, (2,), 2))
    assert no_process_is_left()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGXCPU])
def test_a_worker_that_dies_is_named_by_its_signal(number: signal.Signals) -> None:
    def die(part: list[int], out: np.ndarray) -> None:
        if part == [4, 5]:
            os.kill(os.getpid(), number)

    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        list(filled(die, PARTS, (2,), 2))
    one_line(caught.value, f"one was ended by {number.name}")
    assert time.monotonic() - began < 5
    assert no_process_is_left()


@pytest.mark.parametrize("limit", ["fork", "semaphores", "memory"])
def test_workers_that_cannot_start(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = {
        "fork": (os, "fork"),
        "semaphores": (workers, "ProcessPoolExecutor"),
        "memory": (workers.mmap, "mmap"),
    }
    monkeypatch.setattr(*place[limit], refuse)
    with pytest.raises(UserError) as caught:
        list(filled(write_index, PARTS, (2,), 2))
    one_line(caught.value, "the 2 processes that read images failed", "No space left on device")
    assert no_process_is_left()


def test_a_worker_that_hangs_is_told_and_does_not_outlive_its_reader(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.2)

    def hang(part: list[int], out: np.ndarray) -> None:
        time.sleep(1.0 if part == PARTS[0] else 1000)

    arrays = filled(hang, PARTS, (2,), 2)
    next(arrays)
    assert "no batch of images for" in capsys.readouterr().err
    arrays.close()
    assert no_process_is_left()


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = """
import os, sys, time
from steadyspike.data.workers import filled
def hang(part, out):
    open(f"{sys.argv[1]}/{os.getpid()}", "w")
    time.sleep(1000)
list(filled(hang, [[0]] * 4, (2,), 2))
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment())
    give_up = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    process.kill()
    process.wait()
    own = [Path("/proc", path.name) for path in tmp_path.iterdir()]
    while any(path.exists() for path in own):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_no_room_in_shared_memory(tmp_path: Path) -> None:
    """Batches of 8 MB with 1 MB in /dev/shm; as root, who may mount one."""
    needs_mounting()
    program = """
from steadyspike.data.workers import filled
def fill(part, out): out[:] = part[0]
print(sum(int(array[0, -1]) for array in filled(fill, [[n] for n in range(6)], (8 << 20,), 2)))
"""
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("15\n", "")
