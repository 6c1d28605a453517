"""ImageNet (ILSVRC2012; Russakovsky et al., arXiv:1409.0575), which nobody may pass on.

``<root>/imagenet`` holds image folders, ``{train,val}/<wnid>/*.JPEG``, or WebDataset shards,
``shards/{train,val}-000000.tar`` and on; folders go first. Its files are never hashed one by one:
the manifest records classes, counts, bytes, and a digest of all names and sizes.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from steadyspike.data.dataset import Dataset, Source, fetched_root
from steadyspike.data.image_folder import Listing, list_images
from steadyspike.data.manifest import manifest_of_files, read_manifest, write_manifest
from steadyspike.data.shards import ShardStore, find_shards, read_index
from steadyspike.data.streaming import FileStore, Store, StreamedSplit
from steadyspike.errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAME = "imagenet"
SPLITS: dict[str, Literal["random", "middle"]] = {"train": "random", "val": "middle"}
FETCH = "run `steadyspike fetch imagenet` to see what is expected"


@dataclass(frozen=True)
class Expected:
    """How many classes, and images of each split, there must be."""

    classes: int
    images: dict[str, int]


ILSVRC2012 = Expected(1000, {"train": 1_281_167, "val": 50_000})


@dataclass(frozen=True)
class Survey:
    """A split as it lies on the disk; ``facts`` stand for it in the manifest."""

    classes: tuple[str, ...]
    store: Store
    labels: NDArray[np.int64]
    facts: dict[str, Any]


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


def survey(root: Path, expected: Expected = ILSVRC2012) -> dict[str, Survey]:
    """Both splits, counted but not decoded. Raises UserError that names what is not as expected."""
    folder = root / NAME
    if any((folder / split).is_dir() for split in SPLITS):
        splits = _survey_folders(folder)
    elif (folder / "shards").is_dir():
        splits = {split: _survey_shards(root, split, expected) for split in SPLITS}
    else:
        raise UserError(how_to_get(folder))
    for split, found in splits.items():
        if len(found.classes) != expected.classes:
            raise UserError(
                f"{folder / split}: expected {expected.classes} class folders,"
                f" found {len(found.classes)}; {FETCH}"
            )
        if len(found.labels) != expected.images[split]:
            raise UserError(
                f"{folder}: {split}: expected {expected.images[split]} images,"
                f" found {len(found.labels)}; {FETCH}"
            )
    return splits


def _survey_folders(folder: Path) -> dict[str, Survey]:
    for split in SPLITS:
        if not (folder / split).is_dir():
            raise UserError(f"{folder / split}: missing; {FETCH}")
    listings = {split: list_images(folder / split) for split in SPLITS}
    train, val = (set(listings[split].classes) for split in SPLITS)
    for split, lacking in (("train", val - train), ("val", train - val)):
        if lacking:
            raise UserError(
                f"{folder / split / min(lacking)}: missing; expected the same class folders in"
                " train and val"
            )
    return {split: _of_listing(listing) for split, listing in listings.items()}


def _of_listing(listing: Listing) -> Survey:
    files = zip(listing.names.tolist(), listing.sizes.tolist(), strict=True)
    return Survey(
        listing.classes,
        FileStore(listing.folder, listing.names),
        listing.labels,
        _facts(listing.labels, files),
    )


def _survey_shards(root: Path, split: str, expected: Expected) -> Survey:
    paths = find_shards(root / NAME / "shards", split)
    index = read_index(paths, expected.classes, root / f"{NAME}.{split}.index.npz")
    seen = np.bincount(index.labels, minlength=expected.classes)
    if not seen.all():
        raise UserError(
            f"{root / NAME / 'shards'}: {split}: no image of the label {int(seen.argmin())};"
            f" expected every label of 0 to {expected.classes - 1}"
        )
    # A shard knows its classes by number alone.
    classes = tuple(str(label) for label in range(expected.classes))
    files = [(os.fsencode(path.name), path.stat().st_size) for path in paths]
    return Survey(classes, ShardStore(paths, index), index.labels, _facts(index.labels, files))


def _facts(labels: NDArray[np.int64], files: Iterable[tuple[bytes, int]]) -> dict[str, Any]:
    """What stands for the files: counts, bytes, and SHA-256 over each name, size and a zero."""
    digest, total = hashlib.sha256(), 0
    for name, size in files:
        digest.update(b"%b\t%d\0" % (name, size))
        total += size
    return {"images": len(labels), "bytes": total, "names_and_sizes_sha256": digest.hexdigest()}


def _digest(found: Survey) -> str:
    """What stands for a split's images and labels; a shard's labels lie within it."""
    labels = hashlib.sha256(found.labels.tobytes()).hexdigest()
    return f"{found.facts['names_and_sizes_sha256']} {labels}"


def describe(splits: dict[str, Survey]) -> dict[str, Any]:
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
    """The data set, counted and, where there is a manifest, compared with it; images stay on disk.

    An image is decoded when its batch is; a corrupt one is a UserError then that names it.
    """
    root = fetched_root(root)
    splits = survey(root, expected)
    path = root / f"{NAME}.manifest.json"
    if path.exists():
        known = read_manifest(path, "remove it and run `steadyspike fetch imagenet`")
        found = json.loads(json.dumps(describe(splits)))
        for split in SPLITS:
            if known.get("splits", {}).get(split) != found["splits"][split]:
                raise UserError(
                    f"{root / NAME}: {split}: not what {path} describes; put the files back, or"
                    " run `steadyspike fetch imagenet` to accept these"
                )
    train, test = (
        StreamedSplit(
            found.store,
            torch.from_numpy(found.labels),
            SPLITS[split],
            digest=_digest(found),
        )
        for split, found in splits.items()
    )
    return Dataset(NAME, splits["train"].classes, MEAN, STD, train, test)


def fetch(root: Path | None, expected: Expected = ILSVRC2012) -> Path:
    """Checks what was put in place by hand and writes its manifest, or says what to download."""
    root = fetched_root(root)
    path = root / f"{NAME}.manifest.json"
    write_manifest(path, describe(survey(root, expected)))
    return path


def manifest(root: Path | None, expected: Expected = ILSVRC2012) -> dict[str, Any]:
    """Classes, counts, bytes and digests of what lies there now."""
    return describe(survey(fetched_root(root), expected))


SOURCES = {NAME: Source(load, fetch, manifest)}
