"""CIFAR10-DVS (Li et al., Frontiers in Neuroscience 2017): 1,000 recordings of each class."""

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadyspike.console import notify
from steadyspike.data.aedat import read_aedat2
from steadyspike.data.clips import SPLITS, EventDataset, write_clips
from steadyspike.data.events import integrate
from steadyspike.errors import UserError

NAME = "cifar10_dvs"
STEPS = 10
URL = "https://ndownloader.figshare.com/files/"
ARCHIVES = {  # class: figshare's number and the MD5, as SpikingJelly lists them
    "airplane": ("7712788", "0afd5c4bf9ae06af762a77b180354fdd"),
    "automobile": ("7712791", "8438dfeba3bc970c94962d995b1b9bdd"),
    "bird": ("7712794", "a9c207c91c55b9dc2002dc21c684d785"),
    "cat": ("7712812", "52c63c677c2b15fa5146a8daf4d56687"),
    "deer": ("7712815", "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
    "dog": ("7712818", "f379ebdf6703d16e0a690782e62639c3"),
    "frog": ("7712842", "cad6ed91214b1c7388a5f6ee56d08803"),
    "horse": ("7712851", "e7cbbf77bec584ffbf913f00e682782a"),
    "ship": ("7712836", "41c7bd7d6b251be82557c6cce9a7d5c9"),
    "truck": ("7712839", "89f3922fd147d9aeff89e76a2b0b70a7"),
}
CLASSES = tuple(ARCHIVES)


def split_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """One class's recordings: 90 percent for training, rounded up, and the rest for testing.

    Sorted as text, so ``_10`` comes before ``_2``: the released code took torchvision's order,
    which sorts names, and SpikingJelly's ``split_to_train_test_set``, which rounds up.
    """
    ordered = sorted(names)
    first = (9 * len(ordered) + 9) // 10
    return ordered[:first], ordered[first:]


def _recordings(archive: Path) -> tuple[list[zipfile.Path], list[zipfile.Path]]:
    """The training and test recordings in one class's archive."""
    opened = zipfile.ZipFile(archive)
    # Names that begin with "._" are resource forks of macOS.
    paths = {PurePosixPath(path).name: path for path in opened.namelist()}
    train, test = split_names(
        name for name in paths if name.endswith(".aedat") and not name.startswith("._")
    )
    if not test:
        raise UserError(f"{archive}: expected at least 2 .aedat files, found {len(train)}")
    first, rest = ([zipfile.Path(opened, paths[name]) for name in part] for part in (train, test))
    return first, rest


def _clips(split: str, classes: Sequence[list[zipfile.Path]]) -> Iterator[NDArray[np.int64]]:
    for number, recordings in enumerate(classes, start=1):
        notify(f"{NAME}: {split}, class {number} of {len(classes)}")
        for recording in recordings:
            yield integrate(read_aedat2(recording), STEPS)


def convert(folder: Path, out: Path, names: Iterable[str] = CLASSES) -> dict[str, Any]:
    """Integrates the recordings of all archives to the clips of both splits."""
    both = [_recordings(folder / f"{name}.zip") for name in names]
    for split, classes in zip(SPLITS, zip(*both, strict=True), strict=True):
        labels = [label for label, recordings in enumerate(classes) for _ in recordings]
        write_clips(out, split, STEPS, labels, enumerate(_clips(split, classes)))
    return {}


DATASET = EventDataset(
    NAME,
    STEPS,
    CLASSES,
    {f"{name}.zip": (md5, URL + number) for name, (number, md5) in ARCHIVES.items()},
    convert,
)
SOURCES = {NAME: DATASET.source()}
