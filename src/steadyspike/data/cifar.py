"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning multiple layers of features", 2009).

Read from the publisher's archive, or from class folders of PNG, ``{train,test}/<class>/*.png``, as
mirrors distribute them. Both forms give the same samples in the same order, that of
`Split.in_content_order`, so results do not depend on the form.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from steadyspike.data.dataset import Dataset, Source, Split, fetched_root
from steadyspike.data.download import download, temporary_folder, unpack
from steadyspike.data.images import decode, list_class_folders, read_file, read_images
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
SIDE = 32
SHAPE = (3, SIDE, SIDE)
CLASSES_10 = "airplane automobile bird cat deer dog frog horse ship truck"
CLASSES_100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


@dataclass(frozen=True)
class Content:
    """What a split holds, as computed from class folders of the real images.

    Images of each class, `Split.digest` in content order, and the `_short` names of the images that
    are published twice.
    """

    per_class: int
    digest: str
    twice: str = ""


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets.

    ``archive`` is the SHA-256 that Keras publishes. URL, file names and MD5 of each file in it
    are torchvision's; nobody publishes SHA-256 of the files. ``classes`` are in the order of the
    labels (of CIFAR-100 the fine ones), which is alphabetical.
    """

    name: str
    archive: FileSum
    classes: tuple[str, ...]
    splits: Mapping[str, Content]

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
    classes=tuple(CLASSES_10.split()),
    splits={
        "train": Content(5000, "593efbd9fe7b8fecd78546caf5f75fd645797562bd4efc841495979c56a0adcc"),
        "test": Content(1000, "001f0d52e62f39576ea5490ac1a0c85bbbf9222a1efd4ea23b0421418d01c50c"),
    },
)
CIFAR100 = Cifar(
    "cifar100",
    FileSum("85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7", 169001437),
    classes=tuple(CLASSES_100.split()),
    splits={
        "train": Content(
            500,
            "8fee744867d1471915a8b9f7dc040be5b08f266d37e10edc2ebcc2c003f935da",
            twice="21c943a7 33756839 34125e7d 5c748fe0 5e71ed1c 7d793f62 7f646026 adc791da b069b166"
            " b2b9617b ba839d23 cb302247 d8220e65 eb4cfe6a",
        ),
        "test": Content(
            100,
            "d3a8feb8f32f213001a58b409706f8ef7af9ebb29db8fcbc0c636c6dea4728a4",
            twice="458e2daf 5b13b43c",
        ),
    },
)


def find(kind: Cifar, root: Path) -> Path | None:
    """The folder with all files, as torchvision lays it, in ``<root>/<name>`` or ``<root>``."""
    for parent in (root / kind.name, root):
        folder: Path = parent / kind.reader.base_folder
        if all((folder / name).is_file() for name in kind.files):
            return folder
    return None


def load(kind: Cifar, root: Path | None) -> Dataset:
    """The data set in memory, from the archive's files if they are all here, else class folders.

    Every file of the archive is checked before its pickle is opened; the images of class folders
    are checked together once they are decoded.
    """
    root = fetched_root(root)
    if _has_class_folders(kind, root):
        splits = {split: read_class_folders(kind, root, split) for split in kind.splits}
        return Dataset(kind.name, kind.classes, MEAN, STD, splits["train"], splits["test"])
    folder = _checked_folder(kind, root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about the age of these pickles
        train, test = (kind.reader(folder.parent, train=train) for train in (True, False))
    return Dataset(kind.name, tuple(train.classes), MEAN, STD, _split(train), _split(test))


def _split(read: Any) -> Split:
    """The images and labels that torchvision has read; its images are (M, H, W, C)."""
    images = torch.from_numpy(read.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(read.targets)).in_content_order()


def _has_class_folders(kind: Cifar, root: Path) -> bool:
    """Whether class folders are to be read: there are some, and the archive's files are not."""
    there = any((root / kind.name / split).is_dir() for split in kind.splits)
    return there and find(kind, root) is None


def read_class_folders(kind: Cifar, root: Path, split: str) -> Split:
    """One split of the class folders.

    Raises UserError that names what is missing, what is too much, or a file that is no image of
    32x32; and, where all this is right, the split if its images are not the published ones.
    """
    folder, expected = root / kind.name / split, kind.splits[split]
    if not folder.is_dir():
        raise UserError(f"{folder}: missing; {_by_hand(kind, root)}")
    classes = list_class_folders(folder)
    for name in sorted(classes.keys() ^ set(kind.classes)):
        what = "missing" if name in kind.classes else f"no class of {kind.name}"
        raise UserError(f"{folder / name}: {what}; expected folders {', '.join(kind.classes)}")
    for name, files in classes.items():
        for path in files:
            if path.suffix.lower() != ".png":
                raise UserError(f"{path}: expected PNG, which keeps the published pixels")
        if len(files) != expected.per_class:
            raise UserError(
                f"{folder / name}: expected {expected.per_class} images, found {len(files)}"
                + _repeated(files, read_images(files, SHAPE, _decoded), expected.twice)
            )
    paths = [path for name in kind.classes for path in classes[name]]
    images = read_images(paths, SHAPE, _decoded)
    labels = torch.arange(len(kind.classes)).repeat_interleave(expected.per_class)
    found = Split(torch.from_numpy(images), labels).in_content_order()
    if found.digest != expected.digest:
        raise UserError(
            f"{folder}: not the published images; expected their SHA-256 in content order"
            f" {expected.digest}, found {found.digest}" + _repeated(paths, images, expected.twice)
        )
    return found


def _decoded(path: Path) -> Image.Image:
    image = decode(read_file(path), str(path))
    if image.size != (SIDE, SIDE):
        raise UserError(
            f"{path}: expected {SIDE}x{SIDE} pixels, found {image.width}x{image.height}"
        )
    return image


def _short(image: NDArray[np.uint8]) -> str:
    """A short name of an image's pixels (C, H, W)."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:8]


def _repeated(paths: Sequence[Path], images: NDArray[np.uint8], published: str) -> str:
    """The end of a message: pairs of files with the same image, but for those published twice."""
    first: dict[str, Path] = {}
    pairs = []
    for path, image in zip(paths, images, strict=True):
        earlier = first.setdefault(_short(image), path)
        if earlier is not path and _short(image) not in published.split():
            pairs.append(f"{earlier} and {path}")
    return "; the same image twice: " + ", ".join(pairs[:3]) if pairs else ""


def fetch(kind: Cifar, root: Path | None) -> Path:
    """Checks what is here, or downloads and unpacks the archive; writes the manifest.

    The manifest says in which ``form`` the images are here. An archive that is there already is
    used, once its SHA-256 is checked, and kept; a downloaded one is removed after unpacking.
    """
    root = fetched_root(root)
    if find(kind, root) is None and not _has_class_folders(kind, root):
        _download(kind, root)
    dataset = load(kind, root)  # checks every file
    folder = find(kind, root)  # None: class folders were read
    files = {name: file_sum(folder / name) for name in kind.files} if folder else {}
    manifest = manifest_of_files(
        files,
        name=kind.name,
        form="archive" if folder else "class folders",
        counts={"train": len(dataset.train), "test": len(dataset.test)},
        images_sha256={"train": dataset.train.digest, "test": dataset.test.digest},
    )
    path = root / f"{kind.name}.manifest.json"
    write_manifest(path, manifest)
    return path


def _download(kind: Cifar, root: Path) -> None:
    url = kind.reader.url
    archive = root / kind.name / url.rsplit("/", 1)[-1]

    def check(path: Path) -> None:
        check_sum(path, file_sum(path), kind.archive, "remove it and run again")

    downloaded = not archive.exists()
    if downloaded:
        try:
            download(url, archive, check)
        except UserError as error:
            raise UserError(f"{error}; or {_by_hand(kind, root)}") from error
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


def _by_hand(kind: Cifar, root: Path) -> str:
    return f"put class folders of PNG at {root / kind.name}/{{train,test}}/<class>/*.png"


def _checked_folder(kind: Cifar, root: Path) -> Path:
    """The folder with all files, their MD5 checked."""
    fetch = f"`steadyspike fetch {kind.name}`"
    folder = find(kind, root)
    if folder is None:
        place = root / kind.name / kind.reader.base_folder
        missing = next(name for name in kind.files if not (place / name).is_file())
        raise UserError(
            f"{place / missing}: missing; get it with {fetch}, or {_by_hand(kind, root)}"
        )
    for name, md5 in kind.files.items():
        check_md5(folder / name, md5, f"remove it and run {fetch}")
    return folder


SOURCES = {
    kind.name: Source(partial(load, kind), partial(fetch, kind)) for kind in (CIFAR10, CIFAR100)
}
