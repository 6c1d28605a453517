"""Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv:1708.07747), in full and as the embedded subset.

Both are IDX files: two zero bytes, type, rank, big-endian sizes, then the values. torchvision
reads them too, but not in gzip, as the embedded ones are.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from steadyspike.data.dataset import Dataset, Source, Split, fetched_root
from steadyspike.data.download import download
from steadyspike.data.manifest import (
    FileSum,
    bytes_sum,
    check_sum,
    manifest_of_files,
    verify_folder,
    write_manifest,
)
from steadyspike.errors import UserError
from steadyspike.files import write_atomically

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MEAN, STD = (0.2860,), (0.3530,)  # of the 60,000 training images, rounded as usual
SIDE = 28

URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
FILES = {  # split: images, labels
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# Of the uncompressed files: the same content is distributed in different gzip files.
CONTENTS = {
    "train-images-idx3-ubyte": FileSum(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 47040016
    ),
    "train-labels-idx1-ubyte": FileSum(
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 60008
    ),
    "t10k-images-idx3-ubyte": FileSum(
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 7840016
    ),
    "t10k-labels-idx1-ubyte": FileSum(
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 10008
    ),
}

RAW = Path("FashionMNIST", "raw")  # where torchvision keeps them
FETCH = "get it with `steadyspike fetch fashion_mnist`"
FETCH_AGAIN = "remove it and run `steadyspike fetch fashion_mnist`"
# `dvc repro` on changed images has written their hash to data.dvc.
PULL = "get it with `dvc pull data.dvc --force`, after `git checkout data.dvc` if that file changed"

IDX_UINT8 = b"\0\0\x08"
GZIP_MAGIC = b"\x1f\x8b"

Arrays = dict[str, NDArray[np.uint8]]


def encode_idx(array: NDArray[np.uint8]) -> bytes:
    """The IDX encoding of a uint8 array."""
    header = struct.pack(f">B{array.ndim}I", array.ndim, *array.shape)
    return IDX_UINT8 + header + array.tobytes()


def compress(content: bytes) -> bytes:
    """One gzip stream with an empty header; the header of Python's ``gzip`` differs by version."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflate.compress(content) + deflate.flush()
    header = GZIP_MAGIC + struct.pack("<BBIBB", 8, 0, 0, 2, 255)
    return header + body + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Writes a uint8 array as an IDX file in gzip, atomically, always as the same bytes."""
    write_atomically(path, compress(encode_idx(array)))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes, plain or in gzip, to a writable array.

    Raises UserError that names the file if it is missing, damaged or of another format.
    """
    return _decode_idx(_content(path), path)


def _content(path: Path) -> bytes:
    """A file's bytes, uncompressed."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except EOFError as error:
        raise UserError(f"{path}: truncated; the gzip stream ends early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: altered; expected one gzip stream ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _decode_idx(content: bytes, path: Path) -> NDArray[np.uint8]:
    rank = content[3] if len(content) > 3 else 0
    start = 4 + 4 * rank
    if content[:3] != IDX_UINT8 or not rank or len(content) < start:
        raise UserError(
            f"{path}: not an IDX file of unsigned bytes; expected the bytes 00 00 08, a rank and"
            f" as many sizes, found {content[:4].hex(' ')}"
        )
    shape = struct.unpack_from(f">{rank}I", content, 4)
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path}: truncated or altered; expected {math.prod(shape)} bytes"
            f" ({'x'.join(map(str, shape))}), found {len(content) - start}"
        )
    return np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(shape)


def find(folder: Path, name: str) -> Path | None:
    """The file ``name``, with .gz or without, where torchvision keeps it or in the folder."""
    for place in (folder / RAW, folder):
        for path in (place / f"{name}.gz", place / name):
            if path.is_file():
                return path
    return None


def read_full(folder: Path, contents: Mapping[str, FileSum] = CONTENTS) -> Arrays:
    """Reads the four files of a folder by name and checks their content.

    Raises UserError for a missing folder or file and for other content than the original's.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {FETCH}")
    arrays = {}
    for name, expected in contents.items():
        path = find(folder, name)
        if path is None:
            raise UserError(f"{folder / RAW / name}.gz: missing; {FETCH}")
        content = _content(path)
        check_sum(path, bytes_sum(content), expected, FETCH_AGAIN)
        arrays[name] = _decode_idx(content, path)
    return arrays


def fetch_full(
    root: Path | None, *, base_url: str = URL, contents: Mapping[str, FileSum] = CONTENTS
) -> Path:
    """Downloads the missing files, checks all four and writes the manifest."""
    root = fetched_root(root)
    folder = root / "fashion_mnist"
    for name, expected in contents.items():

        def check(path: Path, expected: FileSum = expected) -> None:
            check_sum(path, bytes_sum(_content(path)), expected, "run again")

        if find(folder, name) is None:
            download(f"{base_url}{name}.gz", folder / RAW / f"{name}.gz", check)
    arrays = read_full(folder, contents)
    counts = {split: len(_split(arrays, split, folder)) for split in FILES}
    path = root / "fashion_mnist.manifest.json"
    write_manifest(path, manifest_of_files(contents, name="fashion_mnist", counts=counts))
    return path


def _split(arrays: Arrays, split: str, folder: Path) -> Split:
    """A split of images (M, 28, 28) and labels (M,); UserError for other shapes or labels."""
    images, labels = (arrays[name] for name in FILES[split])
    where = f"{folder}: {split}"
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise UserError(f"{where}: expected images of 28x28, found the shape {images.shape}")
    if labels.shape != images.shape[:1]:
        raise UserError(f"{where}: expected {len(images)} labels, found the shape {labels.shape}")
    if labels.size and labels.max() >= len(CLASSES):
        raise UserError(f"{where}: expected labels of 0 to 9, found {labels.max()}")
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long())


def _dataset(name: str, arrays: Arrays, folder: Path) -> Dataset:
    train, test = (_split(arrays, split, folder) for split in ("train", "test"))
    return Dataset(name, CLASSES, MEAN, STD, train, test)


def _load_full(root: Path | None) -> Dataset:
    folder = fetched_root(root) / "fashion_mnist"
    return _dataset("fashion_mnist", read_full(folder), folder)


# The embedded subset: files and manifest in the folder that DVC restores.


def _embedded_folder(root: Path | None) -> Path:
    return Path("data") if root is None else root / "data"


def _pull(folder: Path) -> str:
    """How to get the embedded images."""
    here = folder.with_name("data.dvc").exists()
    return PULL if here else f"{PULL}; run both in the checkout"


def _load_embedded(root: Path | None) -> Dataset:
    folder = _embedded_folder(root)
    verify_folder(folder, _pull(folder))
    arrays = {name: read_idx(folder / f"{name}.gz") for pair in FILES.values() for name in pair}
    return _dataset("embedded", arrays, folder)


def _fetch_embedded(root: Path | None) -> Path:
    folder = _embedded_folder(root)
    verify_folder(folder, _pull(folder))
    return folder / "manifest.json"


SOURCES = {
    "fashion_mnist": Source(_load_full, fetch_full),
    "embedded": Source(_load_embedded, _fetch_embedded),
}
