"""The data sets by name. A new family of data sets adds its ``SOURCES`` here."""

from pathlib import Path
from typing import Any

from PIL import Image

from steadyspike.data import (
    cifar,
    cifar10_dvs,
    dvs_gesture,
    fashion_mnist,
    image_folder,
    imagenet,
)
from steadyspike.data.dataset import Dataset, Source
from steadyspike.errors import UserError

SOURCES: dict[str, Source] = {
    **fashion_mnist.SOURCES,
    **cifar.SOURCES,
    **imagenet.SOURCES,
    **dvs_gesture.SOURCES,
    **cifar10_dvs.SOURCES,
    **image_folder.SOURCES,
}
NAMES: tuple[str, ...] = tuple(sorted(SOURCES))


def load(
    name: str, root: Path | None = None, *, validation: int | None = None, **options: Any
) -> Dataset:
    """Reads a data set and checks it against its checksums.

    ``root`` is the folder that holds the data set's own folder: by default STEADYSPIKE_DATA or
    ``datasets``, and for the embedded set the current folder, which holds ``data``. ``options``
    are those of the data set, as `Source` names them. With ``validation`` the test split is that
    many training samples, which are held out of training (`Dataset.holding_out`).

    Raises UserError for an unknown name, a missing folder or file (with the command that gets
    it) and a damaged file.
    """
    dataset = _source(name).load(root, **options)
    return dataset if validation is None else dataset.holding_out(validation)


def fetch(name: str, root: Path | None = None, **options: Any) -> Path:
    """Downloads what is missing of a data set, checks all of it and writes its manifest.

    Returns the manifest's path. Raises UserError as `load` does, and for a failed download.
    """
    return _source(name).fetch(root, **options)


def read_image(name: str, path: Path, shape: tuple[int, int, int]) -> Image.Image:
    """An image file of any size as a data set's own images are read, for inputs of (C, H, W).

    Raises UserError that names a file that cannot be read, or a data set of event clips.
    """
    read = _source(name).read_image
    if read is None:
        raise UserError(f"{path}: {name} holds clips of events, expected a data set of images")
    return read(path, shape)


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}; expected one of {', '.join(NAMES)}")
    return SOURCES[name]
