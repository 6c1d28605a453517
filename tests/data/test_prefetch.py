"""Batches read ahead are the same batches, and whatever happens happens to the one who asks."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from steadyspike.data.prefetch import read_ahead


def batches(count: int, asked: list[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for number in range(count):
        asked.append(number)
        yield torch.tensor([number]), torch.zeros(1), torch.tensor(number)


def test_in_order_and_all() -> None:
    got = [int(label) for _, _, label in read_ahead(batches(50, []))]
    assert got == list(range(50))


def test_never_further_than_asked_for() -> None:
    asked: list[int] = []
    reading = read_ahead(batches(50, asked), depth=2)
    next(reading)
    give_up = time.monotonic() + 5
    while len(asked) < 4 and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(0.05)
    assert asked == [0, 1, 2, 3]  # one given, two wait, one in the reader's hands
    reading.close()


def test_what_reading_raises_is_raised_here() -> None:
    def broken() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        yield torch.tensor(1), torch.zeros(1), torch.zeros(1)
        raise OSError("the disk is gone")

    reading = read_ahead(broken())
    assert int(next(reading)[0]) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(reading)


def test_a_reader_left_early_ends() -> None:
    before = threading.active_count()
    reading = read_ahead(batches(10**9, []))
    next(reading)
    reading.close()
    assert threading.active_count() == before
