import threading
import time
from collections.abc import Iterator

import pytest
import torch

from steadyspike.data import Split
from steadyspike.data.dataset import Batch
from steadyspike.data.loading import batches, epoch_order, read_ahead, to_frames

SPLIT = Split(
    torch.arange(23 * 2 * 3 * 4, dtype=torch.int64)
    .remainder(256)
    .to(torch.uint8)
    .view(23, 2, 3, 4),
    torch.arange(23) % 5,
)


def test_the_order_is_a_permutation_of_seed_and_epoch_alone() -> None:
    assert epoch_order(0, 0, 8).tolist() == [7, 4, 3, 0, 6, 2, 5, 1]
    order = epoch_order(1, 2, 1000)
    assert torch.equal(order.sort().values, torch.arange(1000))
    torch.manual_seed(99)  # the global state does not matter, nor is it touched
    state = torch.get_rng_state()
    assert torch.equal(epoch_order(1, 2, 1000), order)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(epoch_order(1, 3, 1000), order)
    assert not torch.equal(epoch_order(2, 2, 1000), order)


@pytest.mark.parametrize("size", [1, 5, 23, 50])
def test_batches_follow_the_order(size: int) -> None:
    order = epoch_order(0, 0, 23)
    got = list(batches(SPLIT, order, size))
    seen = [int(i) for indices, _, _ in got for i in indices]
    assert seen == order.tolist()
    assert all(len(indices) == size for indices, _, _ in got[:-1])
    for indices, images, labels in got:
        assert images.dtype == torch.uint8
        for n, index in enumerate(indices.tolist()):
            assert torch.equal(images[n], SPLIT.images[index])
            assert labels[n] == SPLIT.labels[index]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_frames_are_normalized(dtype: torch.dtype) -> None:
    mean, std = (0.25, 0.5), (0.3, 0.7)
    frames = to_frames(SPLIT.images, mean, std, dtype)
    assert frames.dtype == dtype
    assert frames.shape == SPLIT.images.shape
    shift, scale = (torch.tensor(v, dtype=torch.float64).view(2, 1, 1) for v in (mean, std))
    exact = (SPLIT.images.double() / 255 - shift) / scale
    torch.testing.assert_close(frames.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    if dtype != torch.float64:  # half precision is rounded once, at the end
        assert torch.equal(frames, to_frames(SPLIT.images, mean, std).to(dtype))


def numbered(count: int, asked: list[int]) -> Iterator[Batch]:
    """Batches that note in ``asked`` when they are made."""
    for number in range(count):
        asked.append(number)
        yield torch.tensor([number]), torch.zeros(1), torch.tensor(number)


def test_read_ahead_keeps_the_order_and_a_bound_and_ends_its_thread() -> None:
    assert [int(label) for _, _, label in read_ahead(numbered(50, []))] == list(range(50))
    asked: list[int] = []
    before = threading.active_count()
    reading = read_ahead(numbered(50, asked), depth=2)
    next(reading)
    give_up = time.monotonic() + 5
    while len(asked) < 4 and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(0.05)
    assert asked == [0, 1, 2, 3]  # one yielded, two waiting, one being put in the queue
    reading.close()
    assert threading.active_count() == before


def test_read_ahead_raises_what_reading_raises() -> None:
    def broken() -> Iterator[Batch]:
        yield from numbered(1, [])
        raise OSError("the disk is gone")

    reading = read_ahead(broken())
    assert int(next(reading)[0]) == 0
    with pytest.raises(OSError, match="the disk is gone"):
        next(reading)
