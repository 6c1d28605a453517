"""CIFAR10-DVS (Li et al., Frontiers in Neuroscience 2017): 1,000 recordings of each class."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from steadyspike.console import notify
from steadyspike.data.aedat import read_aedat2
from steadyspike.data.archive import check_md5, extracted, member_names
from steadyspike.data.clips import SPLITS, Clip, ClipStore, write_clips
from steadyspike.data.dataset import Dataset, Source, fetched_root
from steadyspike.data.events import integrate
from steadyspike.errors import UserError

NAME = "cifar10_dvs"
STEPS = 10
# Counts are counts: `to_frames` multiplies by 255 / 255.
MEAN, STD = (0.0, 0.0), (1 / 255, 1 / 255)

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
ARCHIVE_LIMIT = 8 << 30  # bytes that one archive unpacks to, at most
REMEDY = f"remove it and run `steadyspike fetch {NAME}`"


def split_names(names: list[str]) -> tuple[list[str], list[str]]:
    """One class's recordings: the first 90 percent to train on, rounded up, and the rest.

    In the order of text, ``_10`` before ``_2``: the released code took torchvision's order, which
    sorts names, and SpikingJelly's ``split_to_train_test_set``, which rounds up.
    """
    ordered = sorted(names)
    first = (9 * len(ordered) + 9) // 10
    return ordered[:first], ordered[first:]


def _names(archive: Path) -> tuple[list[str], list[str]]:
    """The recordings in an archive, as paths in it, split by their names."""
    # "._" begins what a Mac adds to an archive.
    paths = {PurePosixPath(path).name: path for path in member_names(archive)}
    train, test = split_names(
        [name for name in paths if name.endswith(".aedat") and not name.startswith("._")]
    )
    if not test:
        raise UserError(f"{archive}: expected at least 2 .aedat files, found {len(train)}")
    return [paths[name] for name in train], [paths[name] for name in test]


def _clips(folder: Path, names: Mapping[str, tuple[list[str], list[str]]]) -> Iterator[Clip]:
    """Every recording's frames, one class extracted at a time."""
    done = dict.fromkeys(SPLITS, 0)
    for number, (name, split_names) in enumerate(names.items(), start=1):
        notify(f"{NAME}: {name}, class {number} of {len(names)}")
        with extracted(folder / f"{name}.zip", ARCHIVE_LIMIT) as recordings:
            for split, paths in zip(SPLITS, split_names, strict=True):
                for path in paths:
                    yield split, done[split], integrate(read_aedat2(recordings / path), STEPS)
                    done[split] += 1


def fetch(
    root: Path | None,
    *,
    archives: Mapping[str, tuple[str, str]] = ARCHIVES,
) -> Path:
    """Checks the archives, which a person has to download, and integrates them to frames, once.

    Their publisher gives an MD5 alone, which vouches against accidents and not for what nobody
    has looked at; only files of a known SHA-256 are downloaded here. The archives stay, and may
    be removed once the frames are there.

    Raises UserError that says what to download and where to put it.
    """
    store = _store(root)
    if store.complete():
        store.verified()
        return store.path
    sources = {}
    for name, (number, md5) in archives.items():
        archive = store.folder / f"{name}.zip"
        if not archive.is_file():
            raise UserError(
                f"{archive}: missing; its publisher gives no SHA-256 to download it by: get it"
                f" (MD5 {md5}) with a browser from {URL}{number}, put it there and run"
                f" `steadyspike fetch {NAME}` again: it checks the sums of all {len(archives)}"
                " archives and integrates the recordings to frames"
            )
        sources[archive.name] = check_md5(archive, md5, REMEDY)
    names = {name: _names(store.folder / f"{name}.zip") for name in archives}
    labels = {
        split: [label for label, parts in enumerate(names.values()) for _ in parts[place]]
        for place, split in enumerate(SPLITS)
    }
    store.begin()
    write_clips(store.folder, STEPS, labels, _clips(store.folder, names))
    store.finish(sources)
    return store.path


def load(root: Path | None) -> Dataset:
    """The clips (M, 10, 2, 128, 128), mapped from the file."""
    return Dataset(NAME, CLASSES, MEAN, STD, **_store(root).opened())


def manifest(root: Path | None) -> dict[str, Any]:
    """The sums of the frames and of the archives that they were made of, all frames read."""
    return _store(root).verified()


def _store(root: Path | None) -> ClipStore:
    return ClipStore(fetched_root(root), NAME, STEPS)


SOURCES = {NAME: Source(load, fetch, manifest)}
