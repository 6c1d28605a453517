"""Your own images: class folders of PNG or JPEG, ``<path>/{train,test}/<class>/<image>``, any size.

Each image is decoded as `images.decode` does and its largest central square resized. The samples
are in the order of `Split.in_content_order`, so that no file's name decides a result.
"""

import hashlib
import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from steadyspike.data.dataset import Dataset, Source, Split
from steadyspike.data.images import (
    decode,
    in_threads,
    list_class_folders,
    read_file,
    read_fitted,
    read_images,
)
from steadyspike.data.manifest import manifest_of_files, write_manifest
from steadyspike.errors import UserError
from steadyspike.files import found_in

NAME = "image_folder"
SPLITS = ("train", "test")
GIB = 1 << 30


def survey(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """The image files by split and class, all sorted by name.

    A class may lack test images. Raises UserError as `list_class_folders` does, for fewer than
    two classes, and for a class in test that train lacks.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder (dataset.path); expected images at"
            f" {folder}/{{train,test}}/<class>/*.png or *.jpg"
        )
    for split in SPLITS:
        if not (folder / split).is_dir():
            raise UserError(
                f"{folder / split}: missing; expected train and test, {found_in(folder)}"
            )
    splits = {split: list_class_folders(folder / split) for split in SPLITS}
    if len(splits["train"]) < 2:
        raise UserError(f"{folder / 'train'}: expected folders of at least two classes, found one")
    for name in splits["test"]:
        if name not in splits["train"]:
            raise UserError(
                f"{folder / 'test' / name}: expected a class that train has too:"
                f" {', '.join(splits['train'])}"
            )
    return splits


def load(root: Path | None, *, path: str, size: int, channels: int = 3) -> Dataset:
    """The images in memory, normalized by the mean and standard deviation of the training images.

    ``root`` does not matter: ``path`` is relative to the current folder.
    """
    folder, shape = Path(path), (channels, size, size)
    splits = survey(folder)
    count = sum(len(files) for classes in splits.values() for files in classes.values())
    needed, memory = 2 * count * channels * size**2, _memory()  # twice, while they are sorted
    if needed > memory:
        raise UserError(
            f"{folder}: {count} images of {size}x{size} (dataset.size) need"
            f" {needed / GIB:.1f} GiB of memory, expected less than the {memory / GIB:.1f} here"
        )
    classes = tuple(splits["train"])
    train, test = (_read(splits[split], classes, shape) for split in SPLITS)
    mean, std = moments(train.images.numpy())
    return Dataset(NAME, classes, mean, std, train, test)


def _read(
    files: dict[str, list[Path]], classes: tuple[str, ...], shape: tuple[int, int, int]
) -> Split:
    paths = [path for of_class in files.values() for path in of_class]
    labels = [classes.index(name) for name, of_class in files.items() for _ in of_class]
    images = read_images(paths, shape, partial(read_fitted, shape=shape))
    return Split(torch.from_numpy(images), torch.tensor(labels)).in_content_order()


def moments(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images (M, C, H, W), scaled to 0..1.

    From counts of the values, so the same bits on every machine; 1 where nothing varies.
    """
    values = np.arange(256)
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, np.int64)
        for image in images[:, channel]:  # `bincount` of them all would need eight times the memory
            counts += np.bincount(image.ravel(), minlength=256)
        total = counts.sum()
        mean = (counts * values).sum() / total
        variance = (counts * (values - mean) ** 2).sum() / total
        means.append(round(float(mean) / 255, 6))
        deviations.append(round(float(np.sqrt(variance)) / 255, 6) or 1.0)
    return tuple(means), tuple(deviations)


def fetch(root: Path | None, *, path: str, size: int = 0, channels: int = 3) -> Path:
    """Decodes every image and writes ``<path>.manifest.json``: classes, counts and a SHA-256.

    The SHA-256 of a split is over its sorted lines of class and file's SHA-256, without names.
    """
    folder = Path(path)
    splits = survey(folder)
    digests = {split: _digest(classes) for split, classes in splits.items()}
    manifest = manifest_of_files(
        {},
        name=NAME,
        classes=list(splits["train"]),
        counts={split: sum(map(len, classes.values())) for split, classes in splits.items()},
        files_sha256=digests,
    )
    place = folder.with_name(f"{folder.name}.manifest.json")
    write_manifest(place, manifest)
    return place


def _digest(classes: dict[str, list[Path]]) -> str:
    paths = [path for of_class in classes.values() for path in of_class]
    lines = sorted(f"{line}\n" for line in in_threads(_line, paths))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _line(path: Path) -> str:
    raw = read_file(path)
    decode(raw, str(path))
    return f"{path.parent.name} {hashlib.sha256(raw).hexdigest()}"


def _memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


SOURCES = {NAME: Source(load, fetch, required=("path", "size"), optional=("channels",))}
