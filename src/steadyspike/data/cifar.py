"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning multiple layers of features", 2009)."""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from steadyspike.data.dataset import Dataset, Source, Split, fetched_root
from steadyspike.data.download import download, temporary_folder, unpack
from steadyspike.data.manifest import (
    FileSum,
    check_md5,
    check_sum,
    file_sum,
    manifest_of_files,
    write_manifest,
)
from steadyspike.errors import UserError
from steadyspike.files import replace_durably

# Those of CIFAR-10, which the released code uses for CIFAR-100 too.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets.

    ``archive`` is the SHA-256 that Keras publishes. URL, file names and MD5 of each file in it
    are torchvision's; nobody publishes SHA-256 of the files.
    """

    name: str
    archive: FileSum

    @property
    def reader(self) -> Any:
        """torchvision's class of the same data set."""
        from torchvision import datasets  # takes seconds to import

        return getattr(datasets, self.name.upper())

    @property
    def files(self) -> dict[str, str]:
        """The MD5 of each file by name."""
        reader = self.reader
        names = [reader.meta["filename"], reader.meta["md5"]]
        return dict([*reader.train_list, *reader.test_list, names])


CIFAR10 = Cifar(
    "cifar10",
    FileSum("6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce", 170498071),
)
CIFAR100 = Cifar(
    "cifar100",
    FileSum("85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7", 169001437),
)


def find(kind: Cifar, root: Path) -> Path | None:
    """The folder with all files, as torchvision lays it, in ``<root>/<name>`` or ``<root>``."""
    for parent in (root / kind.name, root):
        folder: Path = parent / kind.reader.base_folder
        if all((folder / name).is_file() for name in kind.files):
            return folder
    return None


def load(kind: Cifar, root: Path | None) -> Dataset:
    """The data set in memory, every file checked before its pickle is opened."""
    folder = _checked_folder(kind, fetched_root(root))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about the age of these pickles
        train, test = (kind.reader(folder.parent, train=train) for train in (True, False))
    return Dataset(kind.name, tuple(train.classes), MEAN, STD, _split(train), _split(test))


def _split(read: Any) -> Split:
    """The images and labels that torchvision has read; its images are (M, H, W, C)."""
    images = torch.from_numpy(read.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(read.targets))


def fetch(kind: Cifar, root: Path | None) -> Path:
    """Downloads and unpacks the archive if files are missing, checks all, writes the manifest.

    An archive that is there already is used, once its SHA-256 is checked, and kept; a downloaded
    one is removed after unpacking.
    """
    root = fetched_root(root)
    if find(kind, root) is None:
        url = kind.reader.url
        archive = root / kind.name / url.rsplit("/", 1)[-1]

        def check(path: Path) -> None:
            check_sum(path, file_sum(path), kind.archive, "remove it and run again")

        downloaded = not archive.exists()
        if downloaded:
            download(url, archive, check)
        else:
            check(archive)
        folder = archive.parent / kind.reader.base_folder
        folder.mkdir(exist_ok=True)
        with temporary_folder(archive.parent / ".unpacked") as temporary:
            unpack(archive, temporary)
            for name in kind.files:
                replace_durably(temporary / folder.name / name, folder / name)
        if downloaded:
            archive.unlink()
    dataset = load(kind, root)
    counts = {"train": len(dataset.train), "test": len(dataset.test)}
    folder = _checked_folder(kind, root)
    sums = {name: file_sum(folder / name) for name in kind.files}
    path = root / f"{kind.name}.manifest.json"
    write_manifest(path, manifest_of_files(sums, name=kind.name, counts=counts))
    return path


def _checked_folder(kind: Cifar, root: Path) -> Path:
    """The folder with all files, their MD5 checked."""
    fetch = f"`steadyspike fetch {kind.name}`"
    folder = find(kind, root)
    if folder is None:
        place = root / kind.name / kind.reader.base_folder
        missing = next(name for name in kind.files if not (place / name).is_file())
        raise UserError(f"{place / missing}: missing; get it with {fetch}")
    for name, md5 in kind.files.items():
        check_md5(folder / name, md5, f"remove it and run {fetch}")
    return folder


SOURCES = {
    kind.name: Source(partial(load, kind), partial(fetch, kind)) for kind in (CIFAR10, CIFAR100)
}
