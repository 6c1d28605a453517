import hashlib
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from steadyspike import data
from steadyspike.data.cifar10_dvs import CLASSES, DATASET, convert, split_names
from steadyspike.data.clips import EventDataset
from steadyspike.errors import UserError
from tiny import contents

from .formats import aedat2, write_zip

NAMES = ("airplane", "automobile")


def recording(label: int, number: int) -> bytes:
    """23 events: two a frame, five in the last; their pixels depend on class and number."""
    return aedat2((t, number, 10 * label + t, t % 2) for t in range(23))


def members(label: int) -> dict[str, bytes]:
    name = NAMES[label]
    made = {f"{name}/cifar10_{name}_{n}.aedat": recording(label, n) for n in range(12)}
    return {f"{name}/": b"", **made, f"__MACOSX/{name}/._cifar10_{name}_0.aedat": b"resource fork"}


@pytest.fixture
def small(tmp_path: Path) -> EventDataset:
    """The data set of two archives, which lie where the user has to put them."""
    for label, name in enumerate(NAMES):
        write_zip(tmp_path / "cifar10_dvs" / f"{name}.zip", members(label))
    return of_archives(tmp_path)


def of_archives(root: Path) -> EventDataset:
    """The data set whose archives are those of a folder."""
    archives = {}
    for name in NAMES:
        content = (root / "cifar10_dvs" / f"{name}.zip").read_bytes()
        archives[f"{name}.zip"] = (hashlib.md5(content).hexdigest(), f"https://example.org/{name}")
    return replace(DATASET, archives=archives, convert=partial(convert, names=NAMES))


def test_recordings_become_clips(tmp_path: Path, small: EventDataset) -> None:
    assert small.fetch(tmp_path) == tmp_path / "cifar10_dvs.manifest.json"
    dataset = data.load("cifar10_dvs", tmp_path)
    assert dataset.classes == CLASSES
    assert dataset.train.shape == (10, 2, 128, 128)
    assert dataset.train.labels.tolist() == [0] * 11 + [1] * 11
    assert dataset.test.labels.tolist() == [0, 1]
    ((_, test, _),) = dataset.test.gather([torch.arange(2)], None, None)
    assert test[1].flatten(1).sum(-1).tolist() == [2] * 9 + [5]
    # Of 0, 1, 10, 11, 2, ... 9 as text the last is number 9: row 127 - 9, column 127 - y.
    row, label = 127 - 9, 1
    assert test[1, 0].nonzero().tolist() == [
        [0, row, 127 - 10 * label - 1],  # t 1, whose bit is 1, so polarity 0
        [1, row, 127 - 10 * label - 0],
    ]
    ((_, train, _),) = dataset.train.gather([torch.arange(22)], None, None)
    rows = [127 - int(clip.nonzero()[0, 2]) for clip in train]
    assert rows == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8] * 2


def test_nine_tenths_of_the_sorted_names_are_for_training() -> None:
    names = [f"cifar10_cat_{n}.aedat" for n in range(1000)]
    train, test = split_names(names)
    assert (len(train), len(test)) == (900, 100)
    assert train[:4] == [f"cifar10_cat_{n}.aedat" for n in (0, 1, 10, 100)]
    # 1 that begins with 0 and 111 with each other digit; then 9, 90 and 900 to 908.
    assert test[0] == "cifar10_cat_909.aedat"
    assert sorted(train + test) == train + test
    assert split_names(["b", "a", "c"]) == (["a", "b", "c"], [])  # rounded up
    assert [len(part) for part in split_names([str(n) for n in range(11)])] == [10, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"automobile/cifar10_automobile_3.aedat": recording(1, 3)[:-3]}, "_3.aedat: truncated"),
        (None, "automobile.zip: expected at least 2 .aedat files"),
    ],
)
def test_nothing_is_left_of_a_damaged_recording(
    tmp_path: Path, small: EventDataset, change: dict[str, bytes] | None, message: str
) -> None:
    path = tmp_path / "cifar10_dvs" / "automobile.zip"
    write_zip(path, {"readme": b""} if change is None else {**members(1), **change})
    with pytest.raises(UserError, match=re.escape(message)):
        of_archives(tmp_path).fetch(tmp_path)
    assert sorted(contents(tmp_path)) == ["cifar10_dvs/airplane.zip", "cifar10_dvs/automobile.zip"]
