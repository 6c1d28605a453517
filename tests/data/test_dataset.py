"""Training samples held out to choose between experiments."""

from dataclasses import replace

import pytest
import torch

from steadyspike import data
from steadyspike.errors import UserError
from tiny import REPOSITORY, tiny_dataset


def test_the_last_training_samples_are_held_out() -> None:
    whole = tiny_dataset(train=40, test=23)
    part = whole.holding_out(15)
    for split, samples in ((part.train, slice(25)), (part.test, slice(25, 40))):
        assert torch.equal(split.images, whole.train.images[samples])
        assert torch.equal(split.labels, whole.train.labels[samples])
    assert (part.classes, part.mean, part.std) == (whole.classes, whole.mean, whole.std)
    assert part.content_sha256() not in (whole.content_sha256(), whole.holding_out(14).sha256())


def test_the_test_samples_decide_nothing() -> None:
    one, other = tiny_dataset(test=23), tiny_dataset(test=9)
    assert one.sha256() != other.sha256()
    assert one.holding_out(15).sha256() == other.holding_out(15).sha256()


def test_of_a_named_data_set() -> None:
    whole = data.load("embedded", REPOSITORY)
    part = data.load("embedded", REPOSITORY, validation=1000)
    assert len(part.train) == len(whole.train) - 1000
    assert len(part.test) == 1000
    assert sorted(part.test.labels.unique().tolist()) == list(range(10))


@pytest.mark.parametrize("count", [40, 41])
def test_some_must_be_left(count: int) -> None:
    with pytest.raises(UserError, match=rf"expected fewer than the 40 .*, got {count}$"):
        tiny_dataset(train=40).holding_out(count)


def test_samples_in_files_cannot_be_divided() -> None:
    class InFiles:
        """Not a `Split`."""

    dataset = replace(tiny_dataset(), train=InFiles())  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"dataset\.validation: .* not held in memory"):
        dataset.holding_out(1)
