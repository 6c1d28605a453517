import hashlib
import json
import pickle
import tarfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steadyspike import data
from steadyspike.data.cifar import CIFAR10, CIFAR100, MEAN, Cifar, fetch, load
from steadyspike.data.manifest import file_sum
from steadyspike.errors import UserError

from .conftest import Site

COUNT = 40  # images a file
BATCHES = {
    "cifar10": ([f"data_batch_{n}" for n in range(1, 6)], ["test_batch"], "batches.meta"),
    "cifar100": (["train"], ["test"], "meta"),
}
CLASSES = {"cifar10": 10, "cifar100": 100}


def table(kind: Cifar, name: str) -> dict[Any, Any]:
    """What the batch file of that name holds, with few images."""
    random = np.random.default_rng(sum(name.encode()))
    images = random.integers(0, 256, (COUNT, 3072), dtype=np.uint8)
    labels = random.integers(0, CLASSES[kind.name], COUNT).tolist()
    return {"labels" if kind is CIFAR10 else "fine_labels": labels, "data": images}


def in_content_order(kind: Cifar, names: list[str]) -> list[tuple[int, bytes]]:
    """Label and pixels of each image in these files, sorted by their SHA-256."""
    key = "labels" if kind is CIFAR10 else "fine_labels"
    tables = [table(kind, name) for name in names]
    samples = [
        (label, row.tobytes())
        for content in tables
        for label, row in zip(content[key], content["data"], strict=True)
    ]

    def sha256(sample: tuple[int, bytes]) -> bytes:
        return hashlib.sha256(sample[0].to_bytes(8, "little") + sample[1]).digest()

    return sorted(samples, key=sha256)


def lay(kind: Cifar, folder: Path) -> dict[str, Any]:
    """Writes a small data set; returns the attributes of torchvision's class with its MD5."""
    folder.mkdir(parents=True)
    train, test, meta = BATCHES[kind.name]
    tables = {name: table(kind, name) for name in train + test}
    names = [f"class {n}" for n in range(CLASSES[kind.name])]
    tables[meta] = {kind.reader.meta["key"]: names}
    sums = {}
    for name, content in tables.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    return {
        "train_list": [[name, sums[name]] for name in train],
        "test_list": [[name, sums[name]] for name in test],
        "meta": {**kind.reader.meta, "md5": sums[meta]},
    }


@pytest.fixture(params=[CIFAR10, CIFAR100], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cifar:
    """A data set whose few images lie in ``<name>/<torchvision's folder>``."""
    kind: Cifar = request.param
    made = lay(kind, tmp_path / kind.name / kind.reader.base_folder)
    for name, value in made.items():
        monkeypatch.setattr(kind.reader, name, value)
    return kind


def test_images_and_labels_are_those_of_the_files(kind: Cifar, tmp_path: Path) -> None:
    got = load(kind, tmp_path)
    assert (got.name, got.num_classes) == (kind.name, CLASSES[kind.name])
    assert got.classes[3] == "class 3"
    assert got.mean == MEAN  # also of CIFAR-100
    assert got.train.shape == (3, 32, 32)
    train, test, _ = BATCHES[kind.name]
    assert (len(got.train), len(got.test)) == (COUNT * len(train), COUNT)
    for split, names in ((got.train, train), (got.test, test)):
        expected = in_content_order(kind, names)
        (_, images, labels), *_ = split.gather([torch.arange(len(split))], None, None)
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert images.is_contiguous()
        # All red, then all green, then all blue, row by row.
        assert [image.tobytes() for image in images.numpy()] == [row for _, row in expected]
        assert labels.tolist() == [label for label, _ in expected]
    # The folder may also lie where torchvision puts it.
    (tmp_path / kind.name / kind.reader.base_folder).rename(tmp_path / kind.reader.base_folder)
    assert len(load(kind, tmp_path).test) == COUNT


def test_damaged_and_missing_files_are_named(kind: Cifar, tmp_path: Path) -> None:
    path = tmp_path / kind.name / kind.reader.base_folder / BATCHES[kind.name][0][-1]
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:-9] + bytes(9), b"\x80\x02cposix\nsystem\nU\x04true\x85R."):
        path.write_bytes(content)
        for use in (load, fetch):
            with pytest.raises(
                UserError,
                match=rf"{path.name}: truncated or altered; expected MD5 [0-9a-f]{{32}}, found .*"
                rf"`steadyspike fetch {kind.name}`",
            ):
                use(kind, tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name}: missing; get it with `steadyspike fetch"):
        data.load(kind.name, tmp_path)


@pytest.fixture
def served(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Cifar:
    """CIFAR-10 of a few images, as an archive on a web server."""
    name = CIFAR10.reader.base_folder
    made = lay(CIFAR10, site.folder / name)
    archive = site.folder / CIFAR10.reader.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(site.folder / name, name)
    for attribute, value in {**made, "url": site.url + archive.name}.items():
        monkeypatch.setattr(CIFAR10.reader, attribute, value)
    return replace(CIFAR10, archive=file_sum(archive))


def test_fetch_downloads_unpacks_and_describes(
    served: Cifar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    path = fetch(served, root)
    assert path == root / "cifar10.manifest.json"
    written = json.loads(path.read_text())
    assert written["form"] == "archive"
    assert written["counts"] == {"train": 5 * COUNT, "test": COUNT}
    folder = root / "cifar10" / served.reader.base_folder
    assert written["files"] == {name: asdict(file_sum(folder / name)) for name in served.files}
    # No archive and no temporary folder is left.
    assert [p.name for p in (root / "cifar10").iterdir()] == [served.reader.base_folder]
    assert len(load(served, root).train) == 5 * COUNT
    before = path.read_bytes()
    monkeypatch.setattr(served.reader, "url", "http://127.0.0.1:9/none")
    assert fetch(served, root).read_bytes() == before


def test_an_archive_that_is_there_is_used_and_kept(
    served: Cifar, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "root" / "cifar10" / "cifar-10-python.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes((site.folder / archive.name).read_bytes())
    monkeypatch.setattr(served.reader, "url", f"http://127.0.0.1:9/{archive.name}")
    fetch(served, tmp_path / "root")
    assert archive.exists()


def test_a_wrong_archive_leaves_nothing(served: Cifar, tmp_path: Path, site: Site) -> None:
    archive = site.folder / "cifar-10-python.tar.gz"
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 1
    archive.write_bytes(raw)
    with pytest.raises(UserError, match="altered; expected SHA-256"):
        fetch(served, tmp_path / "root")
    assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
