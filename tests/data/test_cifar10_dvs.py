import hashlib
import re
from pathlib import Path

import pytest
import torch

from steadyspike import data
from steadyspike.data.cifar10_dvs import ARCHIVES, CLASSES, fetch, split_names
from steadyspike.errors import UserError
from tiny import one_line

from .event_files import write_zip
from .formats import aedat2

NAMES = ("airplane", "automobile")


def recording(label: int, number: int) -> bytes:
    """23 events: two a frame, five in the last; their place tells class and number."""
    return aedat2((t, number, 10 * label + t, t % 2) for t in range(23))


def members(label: int) -> dict[str, bytes]:
    name = NAMES[label]
    made = {f"{name}/cifar10_{name}_{n}.aedat": recording(label, n) for n in range(12)}
    return {f"{name}/": b"", **made, f"__MACOSX/{name}/._cifar10_{name}_0.aedat": b"resource fork"}


@pytest.fixture
def archives(tmp_path: Path) -> dict[str, tuple[str, str]]:
    """Two archives where a browser would have put them, by name, with their MD5."""
    known = {}
    for label, name in enumerate(NAMES):
        path = tmp_path / "cifar10_dvs" / f"{name}.zip"
        write_zip(path, members(label))
        known[name] = (f"{name}.zip", hashlib.md5(path.read_bytes()).hexdigest())
    return known


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_recordings_become_clips(tmp_path: Path, archives: dict[str, tuple[str, str]]) -> None:
    path = fetch(tmp_path, archives=archives)
    assert path == tmp_path / "cifar10_dvs.manifest.json"
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
    manifest = data.manifest_of("cifar10_dvs", tmp_path)
    assert manifest["counts"] == {"train": 22, "test": 2}
    assert {k: v["md5"] for k, v in manifest["sources"].items()} == {
        f"{name}.zip": md5 for name, (_, md5) in archives.items()
    }


def test_frames_are_made_once_and_outlive_the_archives(
    tmp_path: Path, archives: dict[str, tuple[str, str]]
) -> None:
    before = fetch(tmp_path, archives=archives).read_bytes()
    for name in NAMES:
        (tmp_path / "cifar10_dvs" / f"{name}.zip").unlink()
    assert data.fetch("cifar10_dvs", tmp_path).read_bytes() == before
    assert len(files(tmp_path)) == 5


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


def test_the_classes_are_cifars_in_order() -> None:
    assert list(CLASSES) == sorted(CLASSES)
    assert len({md5 for _, md5 in ARCHIVES.values()}) == 10
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for _, md5 in ARCHIVES.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"automobile/cifar10_automobile_3.aedat": recording(1, 3)[:-3]}, "_3.aedat: truncated"),
        ({"automobile/cifar10_automobile_3.aedat": b"x" * 99}, "_3.aedat: expected an AEDAT 2.0"),
        ({"automobile/cifar10_automobile_3.aedat": aedat2([])}, "_3.aedat: no events"),
        ({"../cifar10_automobile_99.aedat": recording(1, 99)}, "expected a path inside"),
        (None, "automobile.zip: expected at least 2 .aedat files"),
    ],
)
def test_nothing_is_kept_of_a_broken_input(
    tmp_path: Path,
    archives: dict[str, tuple[str, str]],
    change: dict[str, bytes] | None,
    message: str,
) -> None:
    path = tmp_path / "cifar10_dvs" / "automobile.zip"
    write_zip(path, {"readme": b""} if change is None else {**members(1), **change})
    archives["automobile"] = ("", hashlib.md5(path.read_bytes()).hexdigest())
    with pytest.raises(UserError, match=re.escape(message)):
        fetch(tmp_path, archives=archives)
    assert files(tmp_path) == ["cifar10_dvs/airplane.zip", "cifar10_dvs/automobile.zip"]


def test_another_archive_is_refused(tmp_path: Path, archives: dict[str, tuple[str, str]]) -> None:
    archives["automobile"] = ("", "0" * 32)
    with pytest.raises(
        UserError, match=r"automobile\.zip: truncated or altered; expected MD5 0000"
    ):
        fetch(tmp_path, archives=archives)


def test_a_missing_archive_is_explained_in_one_line(
    tmp_path: Path, archives: dict[str, tuple[str, str]]
) -> None:
    (tmp_path / "cifar10_dvs" / "automobile.zip").unlink()
    with pytest.raises(UserError) as caught:
        fetch(tmp_path, archives=archives)
    one_line(
        caught.value,
        f"{tmp_path}/cifar10_dvs/automobile.zip: missing; its publisher gives no SHA-256",
        f"MD5 {archives['automobile'][1]}",
        "https://ndownloader.figshare.com/files/automobile.zip",
        "run `steadyspike fetch cifar10_dvs` again",
    )
    assert files(tmp_path) == ["cifar10_dvs/airplane.zip"]
