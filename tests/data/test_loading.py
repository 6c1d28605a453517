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
    order = epoch_order(1, 2, 1000)
    assert torch.equal(order.sort().values, torch.arange(1000))
    torch.manual_seed(99)  # the global state does not matter, nor is it touched
    state = torch.get_rng_state()
    assert torch.equal(epoch_order(1, 2, 1000), order)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(epoch_order(1, 3, 1000), order)
    assert not torch.equal(epoch_order(2, 2, 1000), order)


def test_the_order_never_changes() -> None:
    assert epoch_order(0, 0, 8).tolist() == [7, 4, 3, 0, 6, 2, 5, 1]


@pytest.mark.parametrize("size", [1, 5, 23, 50])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_follow_the_order(size: int, drop_last: bool) -> None:
    order = epoch_order(0, 0, 23)
    got = list(batches(SPLIT, order, size, drop_last))
    seen = [int(i) for indices, _, _ in got for i in indices]
    assert seen == order.tolist()[: 23 // size * size if drop_last else 23]
    assert all(len(indices) == size for indices, _, _ in got[:-1])
    for indices, images, labels in got:
        assert images.dtype == torch.uint8
        for n, index in enumerate(indices.tolist()):
            assert torch.equal(images[n], SPLIT.images[index])
            assert labels[n] == SPLIT.labels[index]


def test_a_part_of_the_order_gives_a_part_of_the_samples() -> None:
    order = epoch_order(0, 0, 23)
    parts = [list(batches(SPLIT, order[rank::2], 4)) for rank in range(2)]
    seen = sorted(int(i) for part in parts for indices, _, _ in part for i in indices)
    assert seen == list(range(23))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_frames_are_normalized(dtype: torch.dtype) -> None:
    mean, std = (0.25, 0.5), (0.3, 0.7)
    frames = to_frames(SPLIT.images, mean, std, dtype)
    assert frames.dtype == dtype
    assert frames.shape == SPLIT.images.shape
    for channel in range(2):
        for value, frame in zip(
            SPLIT.images[:, channel].flatten().tolist(),
            frames[:, channel].flatten().tolist(),
            strict=True,
        ):
            exact = (value / 255 - mean[channel]) / std[channel]
            assert frame == pytest.approx(exact, rel=2 * torch.finfo(dtype).eps, abs=1e-6)


def test_half_precision_is_rounded_once() -> None:
    single = to_frames(SPLIT.images, (0.286, 0.1), (0.353, 0.2))
    half = to_frames(SPLIT.images, (0.286, 0.1), (0.353, 0.2), torch.bfloat16)
    assert torch.equal(half, single.to(torch.bfloat16))


def numbered(count: int, asked: list[int]) -> Iterator[Batch]:
    """Batches that note in ``asked`` when they are made."""
    for number in range(count):
        asked.append(number)
        yield torch.tensor([number]), torch.zeros(1), torch.tensor(number)


def test_read_ahead_keeps_the_order_and_a_bound() -> None:
    assert [int(label) for _, _, label in read_ahead(numbered(50, []))] == list(range(50))
    asked: list[int] = []
    reading = read_ahead(numbered(50, asked), depth=2)
    next(reading)
    give_up = time.monotonic() + 5
    while len(asked) < 4 and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(0.05)
    assert asked == [0, 1, 2, 3]  # one yielded, two waiting, one being put in the queue
    reading.close()


def test_read_ahead_raises_what_reading_raises() -> None:
    def broken() -> Iterator[Batch]:
        yield from numbered(1, [])
        raise OSError("the disk is gone")

    reading = read_ahead(broken())
    assert int(next(reading)[0]) == 0
    with pytest.raises(OSError, match="the disk is gone"):
        next(reading)


def test_closing_read_ahead_stops_its_thread() -> None:
    before = threading.active_count()
    reading = read_ahead(numbered(10**9, []))
    next(reading)
    reading.close()
    assert threading.active_count() == before
