import errno
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from steadyspike.data import clips as module
from steadyspike.data.archive import ArchiveSum
from steadyspike.data.clips import Clip, Clips, ClipStore, write_clips
from steadyspike.data.loading import batches, epoch_order
from steadyspike.data.manifest import FileSum
from steadyspike.errors import UserError

STEPS = 2
LABELS = {"train": [3, 1, 2, 0], "test": [1, 1]}
SOURCES = {"a.zip": ArchiveSum("0" * 32, FileSum("1" * 64, 5))}


def counts(split: str, place: int) -> NDArray[np.int64]:
    """A sample whose every count tells where it belongs."""
    made = np.zeros((STEPS, 2, 128, 128), np.int64)
    made += 100 * (split == "test") + 10 * place
    made[1, 1, 5, 7] += 1
    return made


def all_clips(*changes: tuple[str, int, int]) -> Iterator[Clip]:
    for split, place in (("train", 2), ("test", 1), ("train", 0), ("train", 3), ("test", 0)):
        made = counts(split, place)
        for changed in changes:
            if changed[:2] == (split, place):
                made[0, 1, 2, 3] = changed[2]
        yield split, place, made
    yield "train", 1, counts("train", 1)


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    store = ClipStore(tmp_path, "set", STEPS)
    write_clips(store.folder, STEPS, LABELS, all_clips())
    store.finish(SOURCES, recorded=7)
    return store


def test_each_sample_lies_in_its_place_with_its_label(store: ClipStore) -> None:
    opened = store.opened()
    for split, labels in LABELS.items():
        clips = opened[split]
        assert len(clips) == len(labels)
        assert clips.shape == (STEPS, 2, 128, 128)
        assert clips.dtype == torch.uint8
        assert clips.labels.tolist() == labels
        assert clips.labels.dtype == torch.int64
        for place in range(len(labels)):
            assert torch.equal(
                clips[place : place + 1][0].long(), torch.tensor(counts(split, place))
            )


def test_indexing_is_a_tensors(store: ClipStore) -> None:
    clips = store.opened()["train"]
    whole = clips[:]
    assert whole.dtype == clips.dtype == torch.uint8
    assert whole.shape == (4, STEPS, 2, 128, 128)
    for index in (torch.tensor([3, 0, 0]), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(clips[index], whole[index])
    for part in (slice(1, 3), slice(None, None, 2), slice(9, None)):
        assert torch.equal(clips[part], whole[part])
    with pytest.raises(IndexError):
        clips[torch.tensor([4])]
    whole += 1  # a copy: the file cannot change
    assert not torch.equal(clips[:], whole)


def test_batches_visit_the_order(store: ClipStore) -> None:
    clips = store.opened()["train"]
    order = epoch_order(0, 0, len(clips))
    got = list(batches(clips, order, 3))
    assert torch.cat([indices for indices, _, _ in got]).tolist() == order.tolist()
    for indices, frames, labels in got:
        assert torch.equal(frames, clips[indices])
        assert torch.equal(labels, clips.labels[indices])


def test_the_type_is_decided_by_the_highest_count(tmp_path: Path) -> None:
    for number, (highest, dtype) in enumerate(
        ((255, "uint8"), (256, "uint16"), (65_535, "uint16"))
    ):
        # Found early or late, the same file.
        for split, place in (("train", 2), ("train", 1)):
            folder = tmp_path / f"{number}{place}"
            made = list(all_clips((split, place, highest)))
            if place == 1:
                made[-1][2][0, 1, 2, 3] = highest
            write_clips(folder, STEPS, LABELS, made)
            frames = np.load(folder / "train_frames.npy")
            assert frames.dtype == dtype
            for known_split, known_place, known in made:
                if known_split == "train":
                    assert np.array_equal(frames[known_place], known)
            assert np.load(folder / "test_frames.npy").dtype == np.uint8
            read = Clips(np.load(folder / "train_frames.npy", mmap_mode="r"), torch.zeros(4), "")
            assert int(read[:].max()) == highest
            assert read[:].dtype == read.dtype
            names = sorted(path.name for path in folder.iterdir())
            assert names == [
                f"{s}_{p}.npy" for s in ("test", "train") for p in ("frames", "labels")
            ]


def test_more_events_than_sixteen_bits_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected at most 65535 events .* found 65536"):
        write_clips(tmp_path, STEPS, LABELS, all_clips(("test", 1, 65_536)))
    assert list(tmp_path.iterdir()) == []


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Clip]:
        yield from list(all_clips(("train", 2, 300)))[:4]
        raise UserError("a.aedat: truncated")

    with pytest.raises(UserError, match=r"a\.aedat"):
        write_clips(tmp_path, STEPS, LABELS, broken())
    with pytest.raises(AssertionError):  # a sample is missing
        write_clips(tmp_path, STEPS, LABELS, list(all_clips())[1:])
    with pytest.raises(KeyError):  # a sample comes twice
        write_clips(tmp_path, STEPS, LABELS, [*all_clips(), *all_clips()])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module._Writer, "_write", full)
    with pytest.raises(UserError, match=r"frames\.npy: no space left on device"):
        write_clips(tmp_path, STEPS, LABELS, all_clips())
    assert list(tmp_path.iterdir()) == []


def test_the_same_clips_give_the_same_bytes(store: ClipStore, tmp_path: Path) -> None:
    write_clips(tmp_path / "other", STEPS, LABELS, reversed(list(all_clips())))
    for path in store.files:
        assert (tmp_path / "other" / path.name).read_bytes() == path.read_bytes()


def test_the_manifest_says_what_is_there(store: ClipStore) -> None:
    manifest = store.verified()
    assert manifest == json.loads(store.path.read_text())
    assert manifest["name"] == "set"
    assert manifest["steps"] == STEPS
    assert manifest["counts"] == {"train": 4, "test": 2}
    assert manifest["recorded"] == 7
    assert manifest["sources"] == {"a.zip": {"md5": "0" * 32, "sha256": "1" * 64, "size": 5}}
    assert set(manifest["files"]) == {path.name for path in store.files}
    assert store.complete()
    store.begin()
    assert not store.complete()
    store.begin()


def damage_size(store: ClipStore) -> None:
    path = store.files[0]
    path.write_bytes(path.read_bytes()[:-1])


def damage_label(store: ClipStore) -> None:
    path = store.files[1]
    path.write_bytes(path.read_bytes()[:-1] + b"\1")


def damage_frames(store: ClipStore) -> None:
    path = store.files[0]
    path.write_bytes(path.read_bytes()[:-1] + b"\1")


def remove_frames(store: ClipStore) -> None:
    store.files[2].unlink()


def remove_manifest(store: ClipStore) -> None:
    store.path.unlink()


def change_steps(store: ClipStore) -> None:
    store.path.write_text(json.dumps({**json.loads(store.path.read_text()), "steps": 3}))


def forget_file(store: ClipStore) -> None:
    known = json.loads(store.path.read_text())
    del known["files"]["test_frames.npy"]
    store.path.write_text(json.dumps(known))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_size, r"train_frames\.npy: truncated; expected .* remove it and run"),
        (damage_label, r"train_labels\.npy: altered; expected SHA-256 .* remove it and run"),
        (remove_frames, r"test_frames\.npy: missing; get it with `steadyspike fetch set`"),
        (remove_manifest, r"set\.manifest\.json: missing; get it with `steadyspike fetch set`"),
        (change_steps, r"set\.manifest\.json: altered; expected train_frames\.npy with steps 2"),
        (forget_file, r"set\.manifest\.json: altered; expected test_frames\.npy with steps 2"),
    ],
)
def test_each_damage_is_named(store: ClipStore, damage: object, message: str) -> None:
    assert callable(damage)
    damage(store)
    for read in (store.opened, store.verified):
        with pytest.raises(UserError, match=message):
            read()


def test_frames_are_read_whole_only_to_verify(store: ClipStore) -> None:
    damage_frames(store)
    assert len(store.opened()["train"]) == 4
    with pytest.raises(UserError, match=r"train_frames\.npy: altered; expected SHA-256"):
        store.verified()


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
def test_frames_of_another_form_are_refused(store: ClipStore, array: NDArray[object]) -> None:
    np.save(store.files[0], array, allow_pickle=True)
    with pytest.raises(UserError, match=r"_(frames|labels)\.npy: altered; expected"):
        store.split("train")


def test_opening_takes_no_time_that_grows_with_the_frames(tmp_path: Path) -> None:
    store = ClipStore(tmp_path, "large", 20)
    store.folder.mkdir()
    known = {}
    for split in ("train", "test"):
        with (store.folder / f"{split}_frames.npy").open("wb") as file:  # 33 GB of holes
            header = {"descr": "|u1", "fortran_order": False, "shape": (50_000, 20, 2, 128, 128)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 50_000 * 20 * 2 * 128 * 128)
        np.save(store.folder / f"{split}_labels.npy", np.zeros(50_000, "<i8"))
    for path in store.files:
        sum = module.file_sum(path) if "labels" in path.name else FileSum("", path.stat().st_size)
        known[path.name] = {"sha256": sum.sha256, "size": sum.size}
    store.path.write_text(json.dumps({"files": known, "steps": 20}))
    began = time.perf_counter()
    clips = store.opened()["train"]
    assert clips[torch.tensor([49_999])].sum() == 0
    assert time.perf_counter() - began < 1
