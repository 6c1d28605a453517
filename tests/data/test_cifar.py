import hashlib
import json
import pickle
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from steadyspike import data
from steadyspike.data import registry
from steadyspike.data.cifar import CIFAR10, CIFAR100, MEAN, Cifar, fetch, load, manifest
from steadyspike.data.manifest import file_sum
from steadyspike.errors import UserError

from .formats import cifar_batch, cifar_names, python2_pickle

Table = dict[Any, Any]
COUNT = 40  # images a file


def table(kind: Cifar, name: str) -> Table:
    """What a file of that name holds, with few images."""
    if name in kind.names:
        return cifar_names(kind.classes, kind.names_key)
    random = np.random.default_rng(sum(name.encode()))
    images = random.integers(0, 256, (COUNT, 3072), dtype=np.uint8)
    labels = random.integers(0, kind.classes, COUNT).tolist()
    return cifar_batch(name, images, labels, kind.labels_key)


Damage = Callable[[Table], object]


def lay(kind: Cifar, folder: Path, damaged: str = "", damage: Damage | bytes = b"") -> Cifar:
    """Writes a small data set and returns its description with sums that hold."""
    folder.mkdir(parents=True)
    sums = {}
    for name in kind.files:
        content = table(kind, name)
        raw = python2_pickle(content)
        if name == damaged:
            changed = damage if isinstance(damage, bytes) else damage(content)
            raw = changed if isinstance(changed, bytes) else python2_pickle(content)
        (folder / name).write_bytes(raw)
        sums[name] = hashlib.md5(raw).hexdigest()
    parts = {part: {name: sums[name] for name in getattr(kind, part)} for part in PARTS}
    return replace(kind, **parts)


PARTS = ("train", "test", "names")
KINDS = [pytest.param(kind, id=kind.name) for kind in (CIFAR10, CIFAR100)]


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_labels_are_those_of_the_files(kind: Cifar, tmp_path: Path) -> None:
    known = lay(kind, tmp_path / kind.name / kind.folder)
    got = load(known, tmp_path)
    assert (got.name, got.num_classes) == (kind.name, kind.classes)
    assert got.classes[3] == "class 3"
    assert got.mean == MEAN  # also of CIFAR-100
    assert got.train.shape == (3, 32, 32)
    assert (len(got.train), len(got.test)) == (COUNT * len(kind.train), COUNT)
    assert got.train.labels.dtype == torch.int64
    start = 0
    for name in kind.train:
        expected = table(kind, name)
        part = slice(start, start + COUNT)
        assert got.train.labels[part].tolist() == expected[kind.labels_key]
        (_, images, _), *_ = got.train.gather([torch.arange(start, start + COUNT)], None, None)
        assert images.dtype == torch.uint8
        assert torch.equal(images.flatten(1), torch.from_numpy(expected["data"]))
        # Row 2, column 5 of the blue plane.
        assert images[7, 2, 2, 5] == expected["data"][7, 2 * 1024 + 2 * 32 + 5]
        start += COUNT


@pytest.mark.parametrize("kind", KINDS)
def test_torchvision_reads_the_same(
    kind: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = lay(kind, tmp_path / kind.folder)
    original = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[kind.name]
    reader = getattr(torchvision.datasets, original)
    monkeypatch.setattr(reader, "train_list", [*known.train.items()])
    monkeypatch.setattr(reader, "test_list", [*known.test.items()])
    (names_file,) = known.names.items()
    meta = {"filename": names_file[0], "key": kind.names_key, "md5": names_file[1]}
    monkeypatch.setattr(reader, "meta", meta)
    mine = load(known, tmp_path)
    for split, train in ((mine.train, True), (mine.test, False)):
        theirs = reader(str(tmp_path), train=train)
        (_, images, labels), *_ = split.gather([torch.arange(len(split))], None, None)
        assert torch.equal(images.permute(0, 2, 3, 1), torch.from_numpy(theirs.data))
        assert labels.tolist() == theirs.targets
        assert list(mine.classes) == theirs.classes


@pytest.mark.parametrize("place", ["cifar10/cifar-10-batches-py", "cifar10", "cifar-10-batches-py"])
def test_the_folder_may_lie_in_three_places(place: str, tmp_path: Path) -> None:
    known = lay(CIFAR10, tmp_path / place)
    assert len(load(known, tmp_path).test) == COUNT


def test_the_pinned_sums_are_torchvisions() -> None:
    for kind, theirs in (
        (CIFAR10, torchvision.datasets.CIFAR10),
        (CIFAR100, torchvision.datasets.CIFAR100),
    ):
        assert kind.train == dict(theirs.train_list)
        assert kind.test == dict(theirs.test_list)
        assert kind.names == {theirs.meta["filename"]: theirs.meta["md5"]}
        assert (kind.folder, kind.url) == (theirs.base_folder, theirs.url)


def test_both_are_registered_and_say_how_to_be_had(tmp_path: Path) -> None:
    for name in ("cifar10", "cifar100"):
        assert name in registry.NAMES
        with pytest.raises(UserError, match=f"missing; get it with `steadyspike fetch {name}`"):
            data.load(name, tmp_path)


def test_another_sum_is_refused_before_anything_is_unpython2_pickle(tmp_path: Path) -> None:
    known = lay(CIFAR10, tmp_path / "cifar10")
    path = tmp_path / "cifar10" / "data_batch_3"
    path.write_bytes(hostile(GLOBAL_SYSTEM, tmp_path))
    with pytest.raises(UserError, match=r"data_batch_3: altered; expected MD5 [0-9a-f]{32}, found"):
        load(known, tmp_path)


GLOBAL_SYSTEM = b"cposix\nsystem\n(X%b\x00\x00\x00%btR."


def hostile(form: bytes, folder: Path) -> bytes:
    command = f"touch {folder}/ran".encode()
    return b"\x80\x02" + form.replace(b"%b\x00", bytes([len(command)]) + b"\x00", 1).replace(
        b"%b", command, 1
    )


ATTACKS = {
    "reduce": GLOBAL_SYSTEM,
    "instance": b"(X%b\x00\x00\x00%biposix\nsystem\n.",
    "object": b"(cposix\nsystem\nX%b\x00\x00\x00%bo.",
    "subprocess": b"csubprocess\ngetoutput\n(X%b\x00\x00\x00%btR.",
    "eval": b"cbuiltins\neval\n(X%b\x00\x00\x00%btR.",
    "codecs": b"c_codecs\nencode\n(X%b\x00\x00\x00%btR.",
    "attribute": b"cnumpy\nload\n(X%b\x00\x00\x00%btR.",
    "dotted": b"\x80\x04\x8c\x05numpy\x8c\x09os.system\x93X%b\x00\x00\x00%b\x85R.",
}


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_a_hostile_pickle_runs_nothing(attack: str, tmp_path: Path) -> None:
    raw = hostile(ATTACKS[attack], tmp_path)
    known = lay(CIFAR10, tmp_path / "cifar10", "data_batch_1", raw)
    with pytest.raises(UserError, match="data_batch_1: expected a pickle of plain values") as told:
        load(known, tmp_path)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "ran").exists()


def test_the_attack_would_work_on_pickle_itself(tmp_path: Path) -> None:
    pickle.loads(hostile(GLOBAL_SYSTEM, tmp_path))
    assert (tmp_path / "ran").exists()


def _set(key: str, value: Any) -> Damage:
    return lambda content: content.update({key: value})


def _label(value: Any) -> Damage:
    return lambda content: content["labels"].__setitem__(-1, value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda content: python2_pickle(content)[:-1],
            "expected a pickle of plain values and arrays",
        ),
        (lambda content: python2_pickle(content)[: COUNT * 1000], "expected a pickle of plain"),
        (b"", "expected a pickle of plain values and arrays"),
        (python2_pickle([1, 2]), "expected a pickled table, found list"),
        (_set("data", np.zeros((COUNT, 3071), np.uint8)), r"data: expected rows of 3072 bytes"),
        (_set("data", np.zeros((COUNT, 3, 1024), np.uint8)), r"data: expected rows of 3072 bytes"),
        (_set("data", np.zeros((COUNT, 3072), np.int8)), "data: expected an array of unsigned"),
        (_set("data", np.zeros((COUNT, 3072), object)), "data: expected an array of unsigned"),
        (_set("data", [0] * 3072), "data: expected an array of unsigned bytes"),
        (lambda content: content.pop("data"), "data: expected an array of unsigned bytes"),
        (lambda content: content.pop("labels"), f"labels: expected a list of {COUNT} labels"),
        (_set("labels", [0] * (COUNT - 1)), f"labels: expected a list of {COUNT} labels"),
        (_label(10), "labels: expected labels of 0 to 9, found 10"),
        (_label(-1), "labels: expected labels of 0 to 9, found -1"),
        (_label("cat"), "labels: expected labels of 0 to 9, found b'cat'"),
    ],
)
def test_a_damaged_batch_is_told_in_one_line(
    damage: Damage | bytes, message: str, tmp_path: Path
) -> None:
    known = lay(CIFAR10, tmp_path / "cifar10", "data_batch_2", damage)
    with pytest.raises(UserError, match=rf"data_batch_2: {message}") as told:
        load(known, tmp_path)
    assert "\n" not in str(told.value)


def test_an_array_of_another_size_than_its_bytes_is_refused(tmp_path: Path) -> None:
    def shorten(content: Table) -> bytes:
        row = b"M" + (3072).to_bytes(2, "little")
        shape, longer = (b"K" + bytes([count]) + row for count in (COUNT, COUNT + 1))
        raw = python2_pickle(content)
        assert raw.count(shape) == 1
        return raw.replace(shape, longer)

    known = lay(CIFAR10, tmp_path / "cifar10", "test_batch", shorten)
    with pytest.raises(UserError, match=f"data: expected {COUNT + 1}x3072 bytes, found"):
        load(known, tmp_path)


def test_the_classes_must_be_named(tmp_path: Path) -> None:
    known = lay(CIFAR10, tmp_path / "cifar10", "batches.meta", _set("label_names", ["a"] * 9))
    with pytest.raises(UserError, match=r"batches.meta: label_names: expected the names of 10"):
        load(known, tmp_path)


# Fetching


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """CIFAR-10 of a few images as its archive on a server; the description, and the folder."""
    folder = tmp_path / "server"
    known = lay(CIFAR10, folder / CIFAR10.folder)
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / CIFAR10.folder, CIFAR10.folder)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
    yield replace(known, url=url, archive=file_sum(archive)), folder
    server.shutdown()
    server.server_close()


def test_fetch_downloads_unpacks_and_describes(served: tuple[Cifar, Path], tmp_path: Path) -> None:
    known, _ = served
    root = tmp_path / "root"
    path = fetch(known, root, allow_loopback=True)
    assert path == root / "cifar10.manifest.json"
    written = json.loads(path.read_text())
    assert written == manifest(known, root)
    assert written["counts"] == {"train": 5 * COUNT, "test": COUNT}
    assert set(written["files"]) == set(known.files)
    left = [p.name for p in (root / "cifar10").iterdir()]
    assert left == [CIFAR10.folder]  # no archive, nothing half done
    assert len(load(known, root).train) == 5 * COUNT
    before = path.read_bytes()
    no_server = replace(known, url="http://127.0.0.1:9/none")
    assert fetch(no_server, root).read_bytes() == before


def test_an_archive_laid_there_by_hand_is_used_and_kept(
    served: tuple[Cifar, Path], tmp_path: Path
) -> None:
    known, folder = served
    archive = tmp_path / "root" / "cifar10" / "cifar-10-python.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes((folder / archive.name).read_bytes())
    fetch(known, tmp_path / "root")  # plain http would be refused
    assert archive.exists()


def test_a_wrong_archive_leaves_nothing(served: tuple[Cifar, Path], tmp_path: Path) -> None:
    known, folder = served
    raw = bytearray((folder / "cifar-10-python.tar.gz").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "cifar-10-python.tar.gz").write_bytes(raw)
    with pytest.raises(UserError, match="altered; expected SHA-256"):
        fetch(known, tmp_path / "root", allow_loopback=True)
    assert not [p for p in (tmp_path / "root").rglob("*") if p.is_file()]
