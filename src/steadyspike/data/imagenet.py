"""ImageNet (ILSVRC2012; Russakovsky et al., arXiv:1409.0575), which has to be downloaded by hand.

``<root>/imagenet`` holds image folders, ``{train,val}/<wnid>/*.JPEG``, or WebDataset shards,
``shards/{train,val}-000000.tar`` and on; if it has both, the folders are used. The files are not
hashed: the manifest records classes, counts, bytes, and a digest of all names and sizes.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from steadyspike.data.dataset import Dataset, Source, fetched_root
from steadyspike.data.images import decode, read_file
from steadyspike.data.manifest import manifest_of_files, read_manifest, write_manifest
from steadyspike.data.shards import find_shards, index_shards
from steadyspike.data.streaming import ImageFiles, Images, StreamedSplit, central_crop
from steadyspike.errors import UserError
from steadyspike.files import found_in, is_stray

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAME = "imagenet"
SPLITS: dict[str, Literal["random", "centre"]] = {"train": "random", "val": "centre"}
ARCHIVES = {split: f"ILSVRC2012_img_{split}.tar" for split in SPLITS}
#: Sorts the validation images, which their archive holds without classes, into class folders.
SORTER = "https://raw.githubusercontent.com/soumith/imagenetloader.torch/master/valprep.sh"
UNPACK = 'for t in *.tar; do mkdir "${t%.tar}" && tar -xf "$t" -C "${t%.tar}" && rm "$t"; done'


@dataclass(frozen=True)
class Expected:
    """How many classes, and images of each split, there must be."""

    classes: int
    images: dict[str, int]


ILSVRC2012 = Expected(1000, {"train": 1_281_167, "val": 50_000})


@dataclass(frozen=True)
class Listing:
    """The M images of one split, ``labels`` (M,), and the split's entry in the manifest."""

    classes: tuple[str, ...]
    images: Images
    labels: NDArray[np.int64]
    facts: dict[str, Any]


def describe_files(labels: NDArray[np.int64], files: Iterable[tuple[bytes, int]]) -> dict[str, Any]:
    """Counts, bytes, and SHA-256 over the name, size and a zero byte of each file of a split."""
    digest, total = hashlib.sha256(), 0
    for name, size in files:
        digest.update(b"%b\t%d\0" % (name, size))
        total += size
    return {"images": len(labels), "bytes": total, "names_and_sizes_sha256": digest.hexdigest()}


def how_to_get(folder: Path) -> str:
    """One line: what to download, where to put it, what will be checked."""
    return (
        f"{folder}: missing; ImageNet must be downloaded by hand: sign in at"
        " https://image-net.org/download-images, get ILSVRC2012_img_train.tar and"
        " ILSVRC2012_img_val.tar, unpack them to"
        f" {folder}/train/<wnid>/*.JPEG and {folder}/val/<wnid>/*.JPEG (or make WebDataset shards,"
        f" {folder}/shards/train-000000.tar and val-000000.tar on, members .jpg and .cls), then run"
        " `steadyspike fetch imagenet` again: it checks 1000 classes, 1281167 and 50000 images,"
        " and that none is empty"
    )


def list_images(folder: Path) -> Listing:
    """Lists class folders as torchvision's ImageFolder does, sorted by class and then by name.

    Raises UserError for a missing folder, one without class folders, a class folder without
    images and an empty image file.
    """
    from torchvision.datasets import ImageFolder  # takes seconds to import

    class ClassFolders(ImageFolder):  # type: ignore[misc]
        """Without the stray files of operating systems."""

        def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
            classes = [name for name in super().find_classes(directory)[0] if not is_stray(name)]
            return classes, {name: label for label, name in enumerate(classes)}

    _check_unpacked(folder)
    names, sizes = [], []
    try:
        found = ClassFolders(folder, is_valid_file=_is_image)
        for path, _ in found.samples:
            size = os.stat(path).st_size  # noqa: PTH116 - a Path for each would take a minute
            if not size:
                raise UserError(f"{path}: empty; expected an image")
            names.append(os.fsencode(path.removeprefix(f"{folder}{os.sep}")))
            sizes.append(size)
    except OSError as error:
        reason = error.strerror or f"{error}; expected {folder}/<class>/<image>.JPEG"
        raise UserError(f"{error.filename or folder}: cannot be read: {reason}") from error
    labels = np.array(found.targets, dtype=np.int64)
    facts = describe_files(labels, zip(names, sizes, strict=True))
    return Listing(tuple(found.classes), ImageFiles(folder, np.array(names)), labels, facts)


def _is_image(path: str) -> bool:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    name = os.path.basename(path)  # noqa: PTH119 - a Path for each would take a minute
    return name.lower().endswith(IMG_EXTENSIONS) and not is_stray(name)


def _check_unpacked(folder: Path) -> None:
    """Raises UserError that says what to do with what lies there instead of class folders."""
    if not folder.is_dir():
        if folder.with_name(ARCHIVES[folder.name]).is_file():
            raise UserError(_unpack(folder))
        raise UserError(
            f"{folder}: missing; expected a folder of this name, {found_in(folder.parent)}; rename"
            f" or link the one with the images: ln -s NAME {folder}"
        )
    entries = [entry for entry in folder.iterdir() if not is_stray(entry.name)]
    if any(entry.is_dir() for entry in entries):
        return
    archives = sum(entry.suffix == ".tar" for entry in entries)
    images = sum(_is_image(entry.name) for entry in entries)
    what = f"{folder}: expected {folder}/<class>/<image>.JPEG, found"
    if archives:
        raise UserError(
            f"{what} {archives} archives of classes; unpack each into a folder of its name:"
            f" cd {folder} && {UNPACK}"
        )
    if images:
        raise UserError(
            f"{what} {images} images without class folders; sort them by class: cd {folder} &&"
            f" curl -L {SORTER} | sh"
        )
    raise UserError(f"{what} no folder; unpack {ARCHIVES[folder.name]} there")


def _unpack(folder: Path) -> str:
    archive = folder.with_name(ARCHIVES[folder.name])
    return (
        f"{folder}: missing; {archive} is not unpacked: mkdir {folder} && tar -xf {archive}"
        f" -C {folder}, and then fetch again"
    )


def list_shards(root: Path, split: str, expected: Expected) -> Listing:
    """Lists the shards of a split, in their order; an index of them is kept in ``root``.

    Shards have no class names, only numbers. Raises UserError for a missing or damaged shard and
    a class without images.
    """
    folder = root / NAME / "shards"
    paths = find_shards(folder, split)
    images = index_shards(paths, expected.classes, root / f"{NAME}.{split}.index.npz")
    counts = np.bincount(images.labels, minlength=expected.classes)
    if not counts.all():
        raise UserError(
            f"{folder}: {split}: no image of the label {int(counts.argmin())};"
            f" expected every label of 0 to {expected.classes - 1}"
        )
    classes = tuple(str(label) for label in range(expected.classes))
    files = [(os.fsencode(path.name), path.stat().st_size) for path in paths]
    return Listing(classes, images, images.labels, describe_files(images.labels, files))


def survey(root: Path, expected: Expected = ILSVRC2012) -> dict[str, Listing]:
    """Lists both splits. Raises UserError that names what is missing or not as expected."""
    folder = root / NAME
    if any((folder / split).is_dir() for split in SPLITS):
        splits = {split: list_images(folder / split) for split in SPLITS}
    elif (folder / "shards").is_dir():
        splits = {split: list_shards(root, split, expected) for split in SPLITS}
    else:
        raise UserError(_where_is_it(root))
    train, val = (set(listing.classes) for listing in splits.values())
    for split, lacking in (("train", val - train), ("val", train - val)):
        if lacking:
            raise UserError(
                f"{folder / split / min(lacking)}: missing; expected the same class folders in"
                " train and val"
            )
    for split, found in splits.items():
        if len(found.classes) != expected.classes:
            raise UserError(
                f"{folder / split}: expected {expected.classes} class folders,"
                f" found {len(found.classes)} ({', '.join(found.classes[:3])}, ...): is"
                f" {ARCHIVES[split]} unpacked whole, and nothing else there?"
            )
        if len(found.labels) != expected.images[split]:
            raise UserError(
                f"{folder}: {split}: expected {expected.images[split]} images,"
                f" found {len(found.labels)}; make it anew from {ARCHIVES[split]}"
            )
    return splits


def _where_is_it(root: Path) -> str:
    """What to do if ``root`` holds no folder of images and no shards where they are expected."""
    folder = root / NAME
    if (root / "train").is_dir() and not folder.is_dir():
        return (
            f"{folder}: missing; found {root / 'train'}: move what is in {root} to {folder}, or set"
            " STEADYSPIKE_DATA to the folder above it"
        )
    archives = [split for split, name in ARCHIVES.items() if (folder / name).is_file()]
    if archives:
        return _unpack(folder / archives[0])
    if folder.is_dir() and any(not is_stray(entry.name) for entry in folder.iterdir()):
        return (
            f"{folder}: expected the folders train and val, or shards, {found_in(folder)}; rename"
            f" or link those with the images: ln -s NAME {folder / 'train'}"
        )
    return how_to_get(folder)


def describe(splits: dict[str, Listing]) -> dict[str, Any]:
    """The manifest of a surveyed ImageNet."""
    train, val = splits["train"], splits["val"]
    return manifest_of_files(
        {},
        name=NAME,
        classes=list(train.classes),
        counts={"train": len(train.labels), "test": len(val.labels)},
        splits={split: found.facts for split, found in splits.items()},
    )


def load(root: Path | None, expected: Expected = ILSVRC2012) -> Dataset:
    """The data set, surveyed and compared with its manifest if there is one.

    An image is decoded when its batch is read, and a damaged one is a UserError then.
    """
    root = fetched_root(root)
    splits = survey(root, expected)
    path = root / f"{NAME}.manifest.json"
    if path.exists():
        known = read_manifest(path, "remove it and run `steadyspike fetch imagenet`")
        for split, found in splits.items():
            if known.get("splits", {}).get(split) != found.facts:
                raise UserError(
                    f"{root / NAME}: {split}: not what {path} describes; put the files back, or"
                    " run `steadyspike fetch imagenet` to accept these"
                )
    train, test = (
        StreamedSplit(
            found.images,
            torch.from_numpy(found.labels),
            SPLITS[split],
            digest=f"{found.facts['names_and_sizes_sha256']}"
            f" {hashlib.sha256(found.labels.tobytes()).hexdigest()}",
        )
        for split, found in splits.items()
    )
    return Dataset(NAME, splits["train"].classes, MEAN, STD, train, test)


def fetch(root: Path | None, expected: Expected = ILSVRC2012) -> Path:
    """Checks the images and writes the manifest, or says what to download."""
    root = fetched_root(root)
    path = root / f"{NAME}.manifest.json"
    write_manifest(path, describe(survey(root, expected)))
    return path


def read_image(path: Path, shape: tuple[int, int, int]) -> Image.Image:
    """An image of any size as a test image: `streaming.central_crop`, whatever the ``shape``."""
    return central_crop(decode(read_file(path), str(path)))


SOURCES = {NAME: Source(load, fetch, read_image)}
