import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from steadyspike.bench import waiting
from steadyspike.bench.setting import Setting
from steadyspike.data.dataset import Split
from tiny import tiny_dataset

SETTING = Setting(image=(1, 12, 12), widths=(2, "P", 2), steps=1, batch=4, threads=1)


@dataclass(frozen=True)
class Slow(Split):
    """A split whose every batch takes a while to read."""

    seconds: float = 0.0

    def to(self, device: torch.device) -> "Slow":
        return self

    def gather(
        self, parts: Sequence[Tensor], seed: int | None, epoch: int | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for batch in super().gather(parts, seed, epoch):
            time.sleep(self.seconds)
            yield batch


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_the_share_is_the_time_between_the_steps(seconds: float) -> None:
    dataset = tiny_dataset(train=80)
    assert isinstance(dataset.train, Split)
    slow = replace(dataset, train=Slow(dataset.train.images, dataset.train.labels, seconds))
    found = waiting.waiting_on(slow, SETTING, "embedded", 60.0, most=5)
    assert found["batches"] == 5
    assert found["batch"] == 4
    idle = found["share"] * found["seconds"]  # of one batch
    assert seconds <= idle < seconds + 0.09
    assert found["share"] < 1


def test_a_small_data_set_is_shown_in_smaller_batches() -> None:
    found = waiting.waiting_on(
        tiny_dataset(train=40), SETTING.but(batch=1000), "embedded", 60.0, most=100
    )
    assert found["batch"] == 3
    assert found["batches"] >= 2
    assert 0 <= found["share"] < 1


def test_it_ends_when_its_seconds_are_over() -> None:
    found = waiting.waiting_on(tiny_dataset(train=400), SETTING, "embedded", 1e-6, most=100)
    assert found["batches"] == 2
