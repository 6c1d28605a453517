import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from steadyspike import data
from steadyspike.data.clips import FILES, EventDataset, write_clips
from steadyspike.data.loading import batches, epoch_order
from steadyspike.errors import UserError
from tiny import change_json, one_line

STEPS = 2
LABELS = {"train": [3, 1, 2, 0], "test": [1, 1]}
MD5 = "5d41402abc4b2a76b9719d911017c592"  # of b"hello"


def counts(split: str, position: int) -> NDArray[np.int64]:
    """A sample whose every count depends on where it belongs."""
    made = np.zeros((STEPS, 2, 128, 128), np.int64)
    made += 100 * (split == "test") + 10 * position
    made[1, 1, 5, 7] += 1
    return made


def clips(split: str, highest: int = 0) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for position in {"train": (2, 0, 3, 1), "test": (1, 0)}[split]:
        made = counts(split, position)
        if position == 2:
            made[0, 1, 2, 3] = max(highest, made[0, 1, 2, 3])
        yield position, made


def convert(folder: Path, out: Path) -> dict[str, int]:
    assert (folder / "a.zip").read_bytes() == b"hello"
    for split, labels in LABELS.items():
        write_clips(out, split, STEPS, labels, clips(split))
    return {"recorded": 7}


ARCHIVES = {"a.zip": (MD5, "https://example.org/a")}
SET = EventDataset("set", STEPS, ("a", "b", "c", "d"), ARCHIVES, convert)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where `SET` has been fetched."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.zip").write_bytes(b"hello")
    assert SET.fetch(tmp_path) == tmp_path / "set.manifest.json"
    return tmp_path


def test_each_sample_is_at_its_position_with_its_label(root: Path) -> None:
    dataset = SET.load(root)
    assert (dataset.name, dataset.classes) == ("set", ("a", "b", "c", "d"))
    for split, labels in LABELS.items():
        samples = getattr(dataset, split)
        assert samples.shape == (STEPS, 2, 128, 128)
        assert (samples.labels.tolist(), samples.labels.dtype) == (labels, torch.int64)
        expected = np.stack([counts(split, position) for position in range(len(labels))])
        assert samples[:].dtype == torch.uint8
        assert np.array_equal(samples[:], expected)
        for index in (torch.tensor([1, 0, 0]), slice(1, 3), slice(9, None)):
            assert np.array_equal(samples[index], expected[index])
        order = epoch_order(0, 0, len(samples))
        got = list(batches(samples, order, 3))
        assert torch.cat([indices for indices, _, _ in got]).tolist() == order.tolist()
        for indices, frames, chosen in got:
            assert torch.equal(frames, samples[indices])
            assert torch.equal(chosen, samples.labels[indices])


@pytest.mark.parametrize(
    ("highest", "dtype"), [(255, np.uint8), (256, np.uint16), (65_535, np.uint16)]
)
def test_the_highest_count_decides_the_type(
    tmp_path: Path, highest: int, dtype: type[np.unsignedinteger]
) -> None:
    write_clips(tmp_path, "train", STEPS, LABELS["train"], clips("train", highest))
    frames = np.load(tmp_path / "train_frames.npy")
    assert frames.dtype == dtype
    for position, expected in clips("train", highest):
        assert np.array_equal(frames[position], expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES[:2])


def test_clips_are_made_once_and_outlive_the_archive(root: Path) -> None:
    manifest = json.loads((root / "set.manifest.json").read_text())
    assert (manifest["name"], manifest["steps"], manifest["recorded"]) == ("set", STEPS, 7)
    assert manifest["counts"] == {"train": 4, "test": 2}
    sha256 = hashlib.sha256(b"hello").hexdigest()
    assert manifest["sources"] == {"a.zip": {"md5": MD5, "sha256": sha256, "size": 5}}
    whole = {path: path.read_bytes() for path in [root / "set" / name for name in FILES]}
    before = (root / "set.manifest.json").read_bytes()
    (root / "set" / "a.zip").unlink()
    assert SET.fetch(root).read_bytes() == before
    (root / "set" / "train_frames.npy").unlink()
    with pytest.raises(UserError, match=rf"a\.zip: missing; .*MD5 {MD5}.*https://example\.org/a"):
        SET.fetch(root)
    (root / "set" / "a.zip").write_bytes(b"help!")
    with pytest.raises(UserError, match=rf"a\.zip: truncated or altered; expected MD5 {MD5}"):
        SET.fetch(root)
    (root / "set" / "a.zip").write_bytes(b"hello")
    assert SET.fetch(root).read_bytes() == before
    assert {path: path.read_bytes() for path in whole} == whole


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("a.aedat: truncated"), "a.aedat: truncated"),
        (OSError(28, os.strerror(28)), r"converted: no space left on device"),
        (None, r"train_frames\.npy: expected at most 65535 events .* found 65536"),
    ],
)
def test_a_failed_conversion_leaves_nothing(
    tmp_path: Path, error: Exception | None, message: str
) -> None:
    def failing(folder: Path, out: Path) -> dict[str, int]:
        write_clips(out, "train", STEPS, LABELS["train"], clips("train", 0 if error else 65_536))
        raise error or AssertionError

    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.zip").write_bytes(b"hello")
    with pytest.raises(UserError, match=message):
        EventDataset("set", STEPS, (), ARCHIVES, failing).fetch(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "a.zip"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def altered(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\1")


def changed(change: Callable[[Any], object]) -> Callable[[Path], None]:
    return lambda path: change_json(path, change)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("set/train_frames.npy", truncated, "truncated; expected .* remove it and run"),
        ("set/train_labels.npy", altered, "altered; expected SHA-256"),
        ("set/test_frames.npy", Path.unlink, "missing; get it with `steadyspike fetch set`"),
        ("set.manifest.json", Path.unlink, "missing; get it with `steadyspike fetch set`"),
        (
            "set.manifest.json",
            changed(lambda it: it.update(steps=3)),
            r"altered; expected train_frames\.npy with steps 2",
        ),
        (
            "set.manifest.json",
            changed(lambda it: it["files"].pop("test_frames.npy")),
            r"altered; expected test_frames\.npy with steps 2",
        ),
    ],
)
def test_each_damage_is_named(
    root: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(root / name)
    with pytest.raises(UserError, match=f"{name}: {message}"):
        SET.load(root)


def test_frames_are_hashed_only_to_verify(root: Path) -> None:
    altered(root / "set" / "train_frames.npy")
    assert len(SET.load(root).train) == 4
    with pytest.raises(UserError, match=r"train_frames\.npy: altered; expected SHA-256"):
        SET.fetch(root)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, STEPS, 2, 128, 127), np.uint8),
        np.zeros((4, STEPS + 1, 2, 128, 128), np.uint8),
        np.zeros((4, STEPS, 2, 128, 128), np.float32),
        np.zeros((3, STEPS, 2, 128, 128), np.uint8),
        np.array([{}], dtype=object),
    ],
)
def test_frames_of_another_form_are_refused(root: Path, array: NDArray[np.generic]) -> None:
    np.save(root / "set" / FILES[0], array, allow_pickle=True)
    with pytest.raises(UserError, match=r"_(frames|labels)\.npy: altered; expected"):
        SET.open_split(root / "set", "train")


@pytest.mark.parametrize(
    ("name", "archive", "md5", "url"),
    [
        (
            "cifar10_dvs",
            "airplane.zip",
            "0afd5c4bf9ae06af762a77b180354fdd",
            "https://ndownloader.figshare.com/files/7712788",
        ),
        (
            "dvs_gesture",
            "DvsGesture.tar.gz",
            "8a5c71fb11e24e5ca5b11866ca6c00a1",
            "https://ibm.ent.box.com/",
        ),
    ],
)
def test_a_missing_archive_is_explained_in_one_line(
    tmp_path: Path, name: str, archive: str, md5: str, url: str
) -> None:
    again = f"run `steadyspike fetch {name}` again"
    with pytest.raises(UserError) as caught:
        data.fetch(name, tmp_path)
    one_line(caught.value, f"{tmp_path}/{name}/{archive}: missing", f"MD5 {md5}", url, again)
    with pytest.raises(UserError, match=f"missing; get it with `steadyspike fetch {name}`"):
        data.load(name, tmp_path)
