"""Reads the next batches while the network trains on the last one."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor, Tensor]  # indices, samples, labels
DEPTH = 2  # batches that wait, at most


def read_ahead(batches: Iterator[Batch], depth: int = DEPTH) -> Iterator[Batch]:
    """The same batches, in order, read by a thread of their own up to ``depth`` ahead.

    Where there is a CUDA device they come in pinned memory, from which copying to it waits for
    nothing. What reading raises is raised here; a reader that is left early is stopped.
    """
    ready: queue.Queue[Any] = queue.Queue(depth)
    left = threading.Event()
    pin = torch.cuda.is_available()

    def put(item: Any) -> bool:
        while not left.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for batch in batches:
                if not put([each.pin_memory() for each in batch] if pin else batch):
                    return
            put(None)
        except BaseException as error:
            put(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            indices, samples, labels = item
            yield indices, samples, labels
    finally:
        left.set()
        reader.join()
