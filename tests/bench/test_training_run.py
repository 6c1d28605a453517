"""Waiting for data, and training for a given time."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from steadyspike.bench.records import Setting
from steadyspike.bench.training_run import train_for, waiting_for
from steadyspike.bench.training_step import experiment_of
from steadyspike.data.dataset import Split
from tiny import tiny_dataset

SETTING = Setting(image=(1, 12, 12), widths=(2, "P", 2), steps=1, batch=4, threads=1)


@dataclass(frozen=True)
class Slow(Split):
    """A split whose every batch takes ``seconds`` to read."""

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
def test_waiting_is_the_time_between_the_steps(seconds: float) -> None:
    dataset = tiny_dataset(train=80)
    assert isinstance(dataset.train, Split)
    slow = replace(dataset, train=Slow(dataset.train.images, dataset.train.labels, seconds))
    found = waiting_for(slow, experiment_of(SETTING), most=5)
    assert (found["batches"], found["batch"]) == (5, 4)
    assert seconds <= found["share"] * found["seconds"] < seconds + 0.09
    assert found["share"] < 1


def test_a_small_data_set_is_measured_in_smaller_batches_and_a_large_one_in_time() -> None:
    found = waiting_for(tiny_dataset(train=40), experiment_of(SETTING.but(batch=1000)))
    assert found["batch"] == 3
    assert found["batches"] >= 2
    found = waiting_for(tiny_dataset(train=400), experiment_of(SETTING), seconds=1e-6)
    assert found["batches"] == 2


@pytest.mark.parametrize("seconds", [1e-3, 3.0])
def test_training_takes_the_epochs_that_fit_and_at_least_one(
    seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tiny_dataset(train=80)
    training = train_for(seconds / 60, dataset, SETTING, processor="A processor", date="2026")
    assert (training.epochs == 1) == (seconds < 0.1)
    assert training.setting.image == (1, 12, 12)
    assert f"test accuracy {training.accuracy:.2f} %" in capsys.readouterr().err.splitlines()[-1]
