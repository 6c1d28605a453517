"""What is fuzzed: for each reader its seeds, and how bytes are given to it.

Where a reader checks a sum first, the bytes are given to what comes behind it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fuzz_checkpoint
import fuzz_seeds as seeds
from fuzz_edits import (
    EDITS,
    checkpoint_of,
    edited_csv,
    edited_json,
    pickle_of,
    with_tar_sums,
)

Attempt = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A reader of files.

    Attributes:
        reads: what it reads, in a few words.
        seeds: makes valid files to begin with.
        prepare: makes, in a folder of its own, what is called with each input; it may raise
            UserError, and nothing else.
        executions: of a million in all.
        longest: of an input, in bytes.
    """

    reads: str
    seeds: Callable[[], list[bytes]]
    prepare: Callable[[Path], Attempt]
    executions: int
    longest: int = 4096


def _file(folder: Path, name: str, read: Callable[[Path], object]) -> Attempt:
    """Reads a file of that name, which has each input in turn."""
    path = folder / name

    def attempt(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return attempt


def _edited(attempt: Attempt, valid: bytes, edit: Callable[[bytes, bytes], bytes]) -> Attempt:
    """Takes an input as a file, or where it begins so as edits of a valid one."""

    def attempt_either(content: bytes) -> object:
        edits = content[:1] == bytes([EDITS])
        return attempt(edit(valid, content[1:]) if edits else content)

    return attempt_either


def _params(folder: Path) -> Attempt:
    import json
    from unittest import mock

    from steadyspike import params
    from steadyspike.train.config import load_experiment

    whole = _file(folder, "params.yaml", lambda path: load_experiment(path, seeds.EXPERIMENT))

    def said(edits: bytes) -> None:
        edited = edited_json(seeds.params()[0], edits)
        document = json.loads(edited, parse_int=lambda digits: int(digits[:1000]))
        # To read each as YAML would take most of the time.
        with mock.patch.object(params, "read_yaml", return_value=document):
            load_experiment(folder / "params.yaml", seeds.EXPERIMENT)

    def either(content: bytes) -> object:
        return said(content[1:]) if content[:1] == bytes([EDITS]) else whole(content)

    return either


def _cifar(folder: Path) -> Attempt:
    from steadyspike.data import cifar
    from steadyspike.data.restricted_unpickler import read_plain_pickle

    path = folder / "data_batch_1"

    def attempt(content: bytes) -> None:
        table = read_plain_pickle(content, path)
        if b"label_names" in table:
            cifar._classes(cifar.CIFAR10, table, path)
        else:
            cifar._split([cifar._batch(cifar.CIFAR10, table, path)])

    return attempt


def _idx(folder: Path) -> Attempt:
    from steadyspike.data.idx import encode_idx, read_idx

    return _file(folder, "images", lambda path: encode_idx(read_idx(path)))


def _aedat2(folder: Path) -> Attempt:
    from steadyspike.data.aedat import read_aedat2
    from steadyspike.data.events import integrate

    return _file(folder, "a.aedat", lambda path: integrate(read_aedat2(path), 2))


def _aedat3(folder: Path) -> Attempt:
    from steadyspike.data.aedat import read_aedat3
    from steadyspike.data.events import integrate

    return _file(folder, "a.aedat", lambda path: integrate(read_aedat3(path).between(0, 5000), 2))


def _gesture_labels(folder: Path) -> Attempt:
    from steadyspike.data.dvs_gesture import read_labels, read_split

    (folder / "user01_lab.aedat").touch()
    (folder / "user01_lab_labels.csv").write_bytes(seeds.gesture_labels()[0])
    labels = _file(folder, "labels.csv", read_labels)
    names = _file(folder, "trials_to_train.txt", lambda path: read_split(path.parent, "train"))
    return lambda content: labels(content) if content.startswith(b"class") else names(content)


def _manifest(folder: Path) -> Attempt:
    from steadyspike.data.manifest import verify_folder

    (folder / "data.gz").touch()
    read = _file(folder, "manifest.json", lambda path: verify_folder(path.parent, "get it"))
    return _edited(read, seeds.manifest()[0], edited_json)


def _archive(name: str) -> Callable[[Path], Attempt]:
    def prepare(folder: Path) -> Attempt:
        from steadyspike.data.archive import extract, member_names

        def read(path: Path) -> None:
            member_names(path)
            out = folder / "out"
            extract(path, out, 1 << 20)
            for extracted in sorted(out.rglob("*"), reverse=True):
                extracted.rmdir() if extracted.is_dir() else extracted.unlink()

        attempt = _file(folder, name, read)
        return lambda content: attempt(with_tar_sums(content))

    return prepare


def _shard(folder: Path) -> Attempt:
    from steadyspike.data.shards import build_index

    read = _file(folder, "train-000000.tar", lambda path: build_index([path], 2))
    return lambda content: read(with_tar_sums(content))


def _image(folder: Path) -> Attempt:
    from steadyspike.data.streaming import decode

    return lambda content: decode(content, "a.jpg", None)


def _clips(folder: Path) -> Attempt:
    from steadyspike.data.clips import ClipStore

    store = ClipStore(folder, "clips", 1)
    store.folder.mkdir()
    frames, labels = (store.folder / f"train_{part}.npy" for part in ("frames", "labels"))
    size = 2 * 128 * 128
    frames_header, labels_header = seeds.clips()

    def attempt(content: bytes) -> None:
        """Of either file the header, the other as it should be."""
        of_labels = b"i8" in content
        frames.write_bytes((frames_header if of_labels else content) + bytes(size))
        labels.write_bytes((content if of_labels else labels_header) + bytes(8))
        store.split("train")

    return attempt


def _metrics(folder: Path) -> Attempt:
    from steadyspike.report import sources

    def read(path: Path) -> object:
        return sources._read_metrics(path, seeds.EXPERIMENT, "dvc repro")

    return _edited(_file(folder, "metrics.json", read), seeds.metrics()[0], edited_json)


def _digests(folder: Path) -> Attempt:
    from steadyspike.report import sources

    read = _file(folder, "digests.json", sources._read_digests)
    return _edited(read, seeds.digests()[0], edited_json)


def _history(folder: Path) -> Attempt:
    from steadyspike.train.history import read_history

    read = _file(folder, "history.csv", lambda path: read_history(path, "train it"))
    return _edited(read, seeds.history()[0], edited_csv)


def _membranes(folder: Path) -> Attempt:
    from steadyspike.report import sources

    read = _file(folder, "membranes.json", sources._read_membranes)
    return _edited(read, seeds.membranes()[0], edited_json)


def _memory(folder: Path) -> Attempt:
    from steadyspike.report import records, sources

    read = _file(folder, "memory.csv", lambda path: sources._read_rows(path, records.Memory))
    return _edited(read, seeds.memory()[0], edited_csv)


def _released(folder: Path) -> Attempt:
    from steadyspike.deploy.released import load_released, released_shapes
    from steadyspike.models import VGGSNN

    model = VGGSNN(1, 1, widths=(1,))

    def read(path: Path) -> None:
        released_shapes(path)
        load_released(path, model)

    attempt = _file(folder, "checkpoint_max.pth", read)
    storages = pickle_of(seeds.released()[0])[1]

    def attempt_either(content: bytes) -> object:
        whole = content.startswith(b"PK")
        return attempt(content if whole else checkpoint_of(content, storages))

    return attempt_either


def _weights(folder: Path) -> Attempt:
    from torch import nn

    from steadyspike.evaluate.weights import load_weights

    model = nn.Linear(1, 1)
    return _file(folder, "model.safetensors", lambda path: load_weights(path, model, "train it"))


def _with_edits(files: Callable[[], list[bytes]]) -> Callable[[], list[bytes]]:
    return lambda: [*files(), *seeds.edits()]


TARGETS = {
    "params": Target("params.yaml", _with_edits(seeds.params), _params, 50_000, 1500),
    "aedat2": Target("AEDAT 2.0 recordings", seeds.aedat2, _aedat2, 100_000, 512),
    "aedat3": Target("AEDAT 3.1 recordings", seeds.aedat3, _aedat3, 100_000, 512),
    "gesture_labels": Target("labels of gestures", seeds.gesture_labels, _gesture_labels, 40_000),
    "idx": Target("IDX files", seeds.idx, _idx, 80_000, 512),
    "cifar": Target("CIFAR pickles", seeds.cifar, _cifar, 100_000, 4096),
    "released": Target("released checkpoints", seeds.released, _released, 40_000, 8192),
    "checkpoint": Target(
        "our checkpoints",
        _with_edits(fuzz_checkpoint.checkpoints),
        fuzz_checkpoint.resume,
        40_000,
        16_384,
    ),
    "weights": Target("weights in safetensors", seeds.weights, _weights, 40_000, 1024),
    "manifest": Target("manifests", _with_edits(seeds.manifest), _manifest, 60_000, 1024),
    "tar": Target("tar archives", seeds.tar, _archive("a.tar.gz"), 40_000, 8192),
    "zip": Target("zip archives", seeds.zip_files, _archive("a.zip"), 40_000, 2048),
    "shard": Target("shards of images", seeds.shard, _shard, 40_000, 8192),
    "image": Target("JPEG and PNG images", seeds.images, _image, 30_000, 2048),
    "clips": Target("clips of event frames", seeds.clips, _clips, 30_000, 512),
    "metrics": Target("metrics.json", _with_edits(seeds.metrics), _metrics, 50_000),
    "digests": Target("digests.json", _with_edits(seeds.digests), _digests, 30_000, 1024),
    "history": Target("history.csv", _with_edits(seeds.history), _history, 40_000, 1024),
    "membranes": Target("membranes.json", _with_edits(seeds.membranes), _membranes, 30_000, 1024),
    "memory": Target("memory.csv", _with_edits(seeds.memory), _memory, 20_000, 512),
}
