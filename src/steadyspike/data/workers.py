"""Worker processes that fill batches, in memory which they share with this process.

The memory is anonymous: it needs no room in /dev/shm, which is 64 MB in a container.
"""

import math
import mmap
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from steadyspike.console import notify
from steadyspike.errors import UserError, reason
from steadyspike.variables import WORKERS

READ_AHEAD = 2  # batches a worker
PATIENCE = 60.0  # seconds of waiting for a batch before a note

Fill = Callable[[list[int], NDArray[np.uint8]], None]

_fill: Fill  # of a worker process
_slots: NDArray[np.uint8]


def filled(
    fill: Fill, parts: Sequence[Sequence[int]], shape: tuple[int, ...], workers: int
) -> Generator[NDArray[np.uint8], None, None]:
    """Yields for each part an array (N, *shape) that ``fill(part, array)`` has filled.

    An array is overwritten once the next one is asked for. ``workers`` may be 0.

    Raises:
        UserError: as ``fill`` does; or a worker ended or could not be started: names the cause and
            a remedy.
    """
    workers = min(workers, len(parts))
    ahead = max(1, min(workers * READ_AHEAD, len(parts)))
    largest = max(1, *map(len, parts)) if parts else 1
    with _explained(workers):
        memory = mmap.mmap(-1, ahead * largest * math.prod(shape))
    slots = np.frombuffer(memory, np.uint8).reshape(ahead, largest, *shape)
    if not workers:
        for part in parts:
            fill(list(part), slots[0, : len(part)])
            yield slots[0, : len(part)]
        return
    pending: deque[Future[None]] = deque()
    with _pool(workers, fill, slots) as pool:
        for number, part in enumerate(parts):
            with _explained(workers, pool):
                for later in range(number + len(pending), min(number + ahead, len(parts))):
                    pending.append(pool.submit(_fill_slot, later % ahead, list(parts[later])))
                _wait_for(pending[0])
                pending.popleft().result()
            yield slots[number % ahead, : len(part)]


@contextmanager
def _pool(workers: int, fill: Fill, slots: NDArray[np.uint8]) -> Iterator[ProcessPoolExecutor]:
    """Within the body, a pool whose workers inherit the arguments; they end with it."""
    before = set(multiprocessing.active_children())
    with _explained(workers):
        pool = ProcessPoolExecutor(
            workers,
            # Inherits the shared memory and the names of a million images, without a copy.
            multiprocessing.get_context("fork"),
            _start_worker,
            (fill, slots, os.getpid()),
        )
    try:
        yield pool
    except BaseException:
        for worker in set(multiprocessing.active_children()) - before:
            worker.kill()  # it may never end by itself
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _explained(workers: int, pool: ProcessPoolExecutor | None = None) -> Iterator[None]:
    """Raises errors of starting the workers, and of their ending early, as one UserError."""
    children = multiprocessing.active_children()
    try:
        yield
    except UserError:
        raise
    except (BrokenExecutor, OSError, MemoryError, RuntimeError) as error:
        cause = reason(error)
        if isinstance(error, BrokenExecutor) and pool is not None:
            pool.shutdown()  # ends the other workers, by SIGTERM
            ended = {child.exitcode or 0 for child in children} - {0, -signal.SIGTERM}
            cause = "; ".join(map(_why_ended, sorted(ended))) or "one of them ended"
        raise UserError(
            f"the {workers} processes that read images failed: {cause}; give this machine or"
            f" container more memory, or set {WORKERS} to less than {workers} (0 reads"
            " without other processes)"
        ) from error


def _why_ended(status: int) -> str:
    if status >= 0:
        return f"one ended with status {status}"
    name = signal.Signals(-status).name
    killed = ", as by a system out of memory" if -status == signal.SIGKILL else ""
    return f"one was ended by {name}{killed}"


def _wait_for(future: "Future[None]") -> None:
    """Waits for as long as it takes; every `PATIENCE` seconds a note says so."""
    waited = 0.0
    while not wait([future], PATIENCE).done:
        waited += PATIENCE
        notify(
            f"steadyspike: note: no batch of images for {waited:.0f} s: is the disk or its server"
            " that slow?"
        )


def _start_worker(fill: Fill, slots: NDArray[np.uint8], parent: int) -> None:
    global _fill, _slots
    _fill, _slots = fill, slots
    # A terminal sends these to all its processes; the parent handles them.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # the parent's threads do not exist here, and would be waited for
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process once its parent was killed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _fill_slot(slot: int, part: list[int]) -> None:
    _fill(part, _slots[slot, : len(part)])
