"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning multiple layers of features", 2009)."""

import hashlib
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steadyspike.data.archive import extracted
from steadyspike.data.dataset import Dataset, Source, Split, fetched_root
from steadyspike.data.download import download
from steadyspike.data.manifest import (
    FileSum,
    bytes_sum,
    check_sum,
    file_sum,
    manifest_of_files,
    write_manifest,
)
from steadyspike.data.restricted_unpickler import byte_array, read_plain_pickle
from steadyspike.errors import UserError
from steadyspike.files import replace_durably

# Those of CIFAR-10. The released code takes them for CIFAR-100 too, and so do its numbers.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
SHAPE = (3, 32, 32)
LARGEST = 1 << 28  # bytes that an archive may unpack to


@dataclass(frozen=True)
class Cifar:
    """One of the two: where it comes from, its files with their MD5, and the keys inside.

    The archive is pinned by the SHA-256 that Keras publishes, the files in it by the MD5 that
    torchvision publishes: nobody publishes their SHA-256, and a folder that torchvision made
    holds them alone.
    """

    name: str
    classes: int
    url: str
    archive: FileSum
    folder: str
    train: dict[str, str]
    test: dict[str, str]
    names: dict[str, str]
    labels_key: str
    names_key: str

    @property
    def files(self) -> dict[str, str]:
        return {**self.train, **self.test, **self.names}


CIFAR10 = Cifar(
    name="cifar10",
    classes=10,
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    archive=FileSum("6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce", 170498071),
    folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    names={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    labels_key="labels",
    names_key="label_names",
)
CIFAR100 = Cifar(
    name="cifar100",
    classes=100,
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    archive=FileSum("85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7", 169001437),
    folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    names={"meta": "7973b15100ade9c7d40fb424638fde48"},
    labels_key="fine_labels",
    names_key="fine_label_names",
)


def find(kind: Cifar, root: Path) -> Path | None:
    """The folder with all the files: torchvision's own, in ``<root>/<name>`` or in the root."""
    for folder in (root / kind.name / kind.folder, root / kind.name, root / kind.folder):
        if all((folder / name).is_file() for name in kind.files):
            return folder
    return None


def read(kind: Cifar, folder: Path) -> tuple[Dataset, dict[str, FileSum]]:
    """Reads the files of a folder, each checked before it is looked into; and their sums.

    Raises UserError that names the file for a wrong MD5 and for content of another form.
    """
    contents = {name: _content(kind, folder / name, md5) for name, md5 in kind.files.items()}
    tables = {name: read_plain_pickle(raw, folder / name) for name, raw in contents.items()}
    (names_file,) = kind.names
    classes = _classes(kind, tables[names_file], folder / names_file)
    train, test = (
        _split(_batch(kind, tables[name], folder / name) for name in part)
        for part in (kind.train, kind.test)
    )
    dataset = Dataset(kind.name, classes, MEAN, STD, train, test)
    return dataset, {name: bytes_sum(raw) for name, raw in contents.items()}


def _content(kind: Cifar, path: Path, md5: str) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != md5:
        raise UserError(
            f"{path}: altered; expected MD5 {md5}, found {found};"
            f" remove it and run `steadyspike fetch {kind.name}`"
        )
    return raw


def _classes(kind: Cifar, table: dict[bytes, Any], path: Path) -> tuple[str, ...]:
    names = table.get(kind.names_key.encode())
    if (
        not isinstance(names, list)
        or len(names) != kind.classes
        or not all(isinstance(name, bytes) and name.isascii() for name in names)
    ):
        raise UserError(f"{path}: {kind.names_key}: expected the names of {kind.classes} classes")
    return tuple(name.decode("ascii") for name in names)


Batch = tuple[NDArray[np.uint8], list[int]]


def _batch(kind: Cifar, table: dict[bytes, Any], path: Path) -> Batch:
    """Rows of 3072 bytes, all red, then all green, then all blue; and as many labels."""
    images = byte_array(table.get(b"data"), path, "data")
    size = int(np.prod(SHAPE))
    if images.ndim != 2 or images.shape[1] != size:
        raise UserError(f"{path}: data: expected rows of {size} bytes, found {images.shape}")
    labels = table.get(kind.labels_key.encode())
    if not isinstance(labels, list) or len(labels) != len(images):
        raise UserError(f"{path}: {kind.labels_key}: expected a list of {len(images)} labels")
    for label in labels:
        if type(label) is not int or not 0 <= label < kind.classes:
            raise UserError(
                f"{path}: {kind.labels_key}: expected labels of 0 to {kind.classes - 1},"
                f" found {reprlib.repr(label)}"
            )
    return images, labels


def _split(batches: Iterable[Batch]) -> Split:
    images, labels = zip(*batches, strict=True)
    stacked = torch.from_numpy(np.concatenate(images).reshape(-1, *SHAPE))
    return Split(stacked, torch.tensor([label for part in labels for label in part]))


def fetch(kind: Cifar, root: Path | None, *, allow_loopback: bool = False) -> Path:
    """Downloads and unpacks the archive where files are missing, checks all, writes the manifest.

    An archive that lies there already is used, once its SHA-256 is checked, and left; one that
    was downloaded is removed after it is unpacked.
    """
    root = fetched_root(root)
    if find(kind, root) is None:
        archive = root / kind.name / kind.url.rsplit("/", 1)[-1]
        there = archive.exists()
        if there:
            check_sum(archive, file_sum(archive), kind.archive, "remove it and run again")
        else:
            download(kind.url, archive, kind.archive, allow_loopback=allow_loopback)
        with extracted(archive, LARGEST) as unpacked:
            for name, md5 in kind.files.items():
                _content(kind, unpacked / kind.folder / name, md5)
                place = root / kind.name / kind.folder / name
                place.parent.mkdir(exist_ok=True)
                replace_durably(unpacked / kind.folder / name, place)
        if not there:
            archive.unlink()
    path = root / f"{kind.name}.manifest.json"
    write_manifest(path, manifest(kind, root))
    return path


def manifest(kind: Cifar, root: Path | None) -> dict[str, Any]:
    """Name, counts and the files' SHA-256 and sizes, of files whose MD5 is the published one."""
    dataset, sums = read(kind, _folder(kind, root))
    counts = {"train": len(dataset.train), "test": len(dataset.test)}
    return manifest_of_files(sums, name=kind.name, counts=counts)


def load(kind: Cifar, root: Path | None) -> Dataset:
    """The data set, every file checked, as bytes in memory."""
    return read(kind, _folder(kind, root))[0]


def _folder(kind: Cifar, root: Path | None) -> Path:
    root = fetched_root(root)
    folder = find(kind, root)
    if folder is None:
        place = root / kind.name / kind.folder
        missing = next(name for name in kind.files if not (place / name).is_file())
        raise UserError(f"{place / missing}: missing; get it with `steadyspike fetch {kind.name}`")
    return folder


SOURCES = {
    kind.name: Source(partial(load, kind), partial(fetch, kind), partial(manifest, kind))
    for kind in (CIFAR10, CIFAR100)
}
