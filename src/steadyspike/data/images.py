"""Decodes image files, for every reader of them."""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from steadyspike.errors import UserError, reason
from steadyspike.files import is_stray, reading
from steadyspike.variables import worker_count

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
TASK = 64  # files that a thread reads at a time

R = TypeVar("R")


def decode(
    raw: bytes, name: str, mode: Literal["RGB", "L"] = "RGB", *, at_least: int | None = None
) -> Image.Image:
    """Decodes a JPEG or PNG file to 8 bits as a viewer shows it, in colour or grey.

    Rotated as its EXIF data say; transparent parts lie on white; of 16 bits the upper 8 are kept;
    palettes, CMYK and grey become the colours that they stand for, without colour profiles. Grey
    is Pillow's 0.299 R + 0.587 G + 0.114 B. Of several pictures in a file the first is taken. With
    ``at_least`` a JPEG is decoded at a half, quarter or eighth of its size if both sides stay that
    long, which is many times faster for photographs.

    Raises UserError with ``name`` for any other, damaged or truncated content, and for a
    transparent colour key where a channel has not 8 bits, which Pillow misreads.
    """
    try:
        with Image.open(io.BytesIO(raw), formats=("JPEG", "PNG")) as file:
            if at_least is not None:
                file.draft(None, (at_least, at_least))
            return _as_seen(file).convert(mode)
    except Exception as error:  # Pillow raises many types for a damaged file
        if isinstance(error, UnidentifiedImageError):
            error = ValueError("unknown format")  # Pillow's text names a buffer in memory
        raise UserError(f"{name}: expected a whole JPEG or PNG image ({reason(error)})") from error


def _as_seen(file: Image.Image) -> Image.Image:
    """An opened image as RGB, L or 1."""
    stored = file.tile[0][3] if file.tile else None  # type: ignore[attr-defined]
    if "transparency" in file.info and file.mode != "P" and stored not in ("L", "RGB"):
        raise ValueError(f"a transparent colour in a PNG of the type {stored}")
    file.load()
    image = file
    with suppress(Exception):  # damaged EXIF data: the picture itself has been decoded
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16-bit grey; `convert` would clip it
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode in ("L", "1") else image.convert("RGB")


def read_fitted(path: Path, shape: tuple[int, int, int]) -> Image.Image:
    """The image in a file for a network that sees (C, H, W): grey for C = 1, colour for C = 3.

    Its largest central part of that aspect, resized by bilinear interpolation with antialiasing.
    Raises UserError that names the file.
    """
    channels, height, width = shape
    mode: Literal["RGB", "L"] = "L" if channels == 1 else "RGB"
    image = decode(read_file(path), str(path), mode, at_least=2 * max(height, width))
    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)


def list_class_folders(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class: of each folder in ``folder``, all sorted by name.

    What file managers leave (.DS_Store, ._*, Thumbs.db, desktop.ini, __MACOSX), and whatever else
    has a name that begins with a dot, is ignored.

    Raises UserError that names a folder that is missing, cannot be read or has no class folders,
    a class without images, a file that is no image by its name, and a class that cannot be printed.
    """
    classes = {}
    for entry in _entries(folder):
        if not entry.is_dir():
            raise UserError(f"{entry}: expected only class folders in {folder}")
        if not entry.name.isprintable():
            raise UserError(f"{folder}: {entry.name!r}: expected a class of printable characters")
        files = _entries(entry)
        for file in files:
            if file.suffix.lower() not in IMAGE_SUFFIXES or not file.is_file():
                raise UserError(f"{file}: expected only image files, .png or .jpg, in {entry}")
        if not files:
            raise UserError(f"{entry}: empty; expected images of this class, .png or .jpg")
        classes[entry.name] = files
    if not classes:
        raise UserError(f"{folder}: empty; expected a folder of images for each class")
    return classes


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name, but for what file managers leave."""
    with reading(folder):
        return sorted(path for path in folder.iterdir() if not is_stray(path.name))


def read_images(
    files: Sequence[Path], shape: tuple[int, int, int], read: Callable[[Path], Image.Image]
) -> NDArray[np.uint8]:
    """``read`` of every file, in threads: uint8 (M, C, H, W), each image of ``shape`` (C, H, W)."""
    images = np.empty((len(files), *shape), np.uint8)
    for place, image in enumerate(in_threads(read, files)):
        pixels = np.asarray(image)  # (H, W) or (H, W, C)
        images[place] = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return images


def in_threads(function: Callable[[Path], R], files: Sequence[Path]) -> Iterator[R]:
    """``function`` of every file, in their order; an exception ends the others."""
    pool = ThreadPoolExecutor(max(worker_count(), 1))
    # A task of several files: handing over a small image takes as long as decoding it.
    tasks = [files[start : start + TASK] for start in range(0, len(files), TASK)]
    try:
        for results in pool.map(lambda task: [function(file) for file in task], tasks):
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises UserError if it cannot be read."""
    with reading(path):
        return path.read_bytes()
