"""WebDataset shards: tar files with ``key.jpg`` and ``key.cls`` for each image.

Each tar file is walked once to find its images; reading an image is then one seek and one read.
"""

import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadyspike.errors import UserError
from steadyspike.files import atomic_path, is_stray, reading

IMAGE_SUFFIXES = ("jpg", "jpeg", "png")
LABEL_SUFFIX = "cls"
COLUMNS = ("shards", "offsets", "sizes", "names", "labels")  # of the index


@dataclass(frozen=True)
class ShardImages:
    """The M images in the tar files ``paths``, for `StreamedSplit`.

    Which of the files, first byte, size, member name and label of each image are arrays (M,).
    """

    paths: tuple[Path, ...]
    shards: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    def read(self, index: int) -> bytes:
        path: Path = self.paths[self.shards[index]]
        # Opened each time: a process may open only so many.
        with reading(path), path.open("rb") as file:
            file.seek(self.offsets[index])
            return file.read(int(self.sizes[index]))

    def name(self, index: int) -> str:
        return f"{self.paths[self.shards[index]]}: {os.fsdecode(bytes(self.names[index]))}"


def find_shards(folder: Path, split: str) -> tuple[Path, ...]:
    """``<split>-000000.tar`` and on, in order.

    Raises UserError that names a missing shard, or one that is not a ``.tar`` file.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.glob(f"{split}-*.*")):
        match = re.fullmatch(rf"{split}-(\d+)(\..+)", path.name)
        if match and (match[2] == ".tar" or int(match[1]) not in found):
            found[int(match[1])] = path
    for number in range(max(found, default=0) + 1):
        path = folder / f"{split}-{number:06d}.tar"
        if number not in found:
            last = f"; found shards to {found[max(found)].name}" if found else ""
            raise UserError(f"{path}: missing; expected shards numbered from 000000{last}")
        if found[number].suffix != ".tar" or not found[number].is_file():
            raise UserError(f"{found[number]}: expected an uncompressed tar file, {path.name}")
    return tuple(found[number] for number in sorted(found))


def index_shards(paths: tuple[Path, ...], classes: int, cache: Path) -> ShardImages:
    """The images of tar files; their index is kept in the file ``cache`` until a tar file changes.

    Raises UserError as `walk_shard` does, and then keeps nothing.
    """
    # Times too: tar files are padded, so other images may give the same size.
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    key = np.array(repr((classes, states)))
    try:
        with np.load(cache) as known:
            if known["key"] == key:
                return ShardImages(paths, **{name: known[name] for name in COLUMNS})
    except Exception:  # missing or damaged, for which NumPy raises many types: index again
        pass
    walked = [
        (number, *image) for number, path in enumerate(paths) for image in walk_shard(path, classes)
    ]
    kinds = (np.int64, np.int64, np.int64, np.bytes_, np.int64)
    arrays: dict[str, Any] = {
        name: np.array([row[n] for row in walked], dtype=kind)
        for n, (name, kind) in enumerate(zip(COLUMNS, kinds, strict=True))
    }
    try:
        with atomic_path(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, key=key, **arrays)
    except UserError:
        pass  # the folder may be read-only, and walking takes only minutes
    return ShardImages(paths, **arrays)


def walk_shard(path: Path, classes: int) -> list[tuple[int, int, bytes, int]]:
    """Offset, size, member name and label of each image in one tar file, in the file's order.

    Other members are skipped. Raises UserError for a truncated, damaged or compressed file, an
    image without label or the reverse, an empty image, two images of one key, and a label that is
    not a number in 0..classes-1.
    """
    images: dict[str, tuple[int, int, bytes]] = {}
    labels: dict[str, int] = {}
    others: set[str] = set()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                # WebDataset's rule: the suffix begins at the first dot of the file's name.
                suffix = member.name.rpartition("/")[2].partition(".")[2]
                key, place = member.name.removesuffix(f".{suffix}"), f"{path}: {member.name}"
                if not member.isreg() or is_stray(member.name.rpartition("/")[2]):
                    continue
                if suffix.lower() in IMAGE_SUFFIXES:
                    if key in images or not member.size:
                        what = "second image" if key in images else "empty"
                        raise UserError(f"{place}: {what}; expected one image for each label")
                    images[key] = (member.offset_data, member.size, os.fsencode(member.name))
                elif suffix.lower() == LABEL_SUFFIX:
                    file = tar.extractfile(member)
                    text = file.read(16).strip() if file is not None else b""
                    if not text.isdigit() or int(text) >= classes:
                        raise UserError(
                            f"{place}: expected a label of 0 to {classes - 1}, found {text!r}"
                        )
                    labels[key] = int(text)
                else:
                    others.add(f".{suffix}")
            end = tar.offset
        with path.open("rb") as raw:
            raw.seek(end)
            # tarfile takes a cut between two members for the end, which is a block of zeros.
            if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise UserError(f"{path}: truncated or damaged; expected a tar file's end at {end}")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path}: truncated, damaged or compressed; expected an uncompressed tar file ({error})"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    found = f", found {', '.join(sorted(others)[:4])}" if others else ""
    if others and not (images and labels):
        raise UserError(
            f"{path}: expected members whose names end in .jpg (.jpeg, .png) and .{LABEL_SUFFIX}"
            f" from the first dot on{found}; write the shards again with these names"
        )
    for key in sorted(images.keys() ^ labels.keys()):
        lacking = LABEL_SUFFIX if key in images else IMAGE_SUFFIXES[0]
        raise UserError(f"{path}: {key}.{lacking}: missing; expected an image and a label per key")
    return [(*image, labels[key]) for key, image in images.items()]
