"""WebDataset shards: tar files whose members share a key, ``key.jpg`` and ``key.cls``.

Each tar file is walked once for where its images lie; from then on any image is one read.
"""

import os
import re
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steadyspike.errors import UserError
from steadyspike.files import atomic_path

IMAGE_SUFFIXES = ("jpg", "jpeg", "png")
LABEL_SUFFIX = "cls"
LABEL_BYTES = 16  # a number needs no more


@dataclass(frozen=True)
class ShardIndex:
    """M images in tar files: which file, first byte, size, name and label of each, all (M,)."""

    shards: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class ShardStore:
    """The images of an index, from tar files ``paths``."""

    paths: tuple[Path, ...]
    index: ShardIndex

    def read(self, index: int) -> bytes:
        """As `Store` says. The file is opened anew: there may be more than may be open at once."""
        path = self.paths[int(self.index.shards[index])]
        try:
            with path.open("rb") as file:
                file.seek(int(self.index.offsets[index]))
                return file.read(int(self.index.sizes[index]))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error

    def name(self, index: int) -> str:
        member = os.fsdecode(bytes(self.index.names[index]))
        return f"{self.paths[int(self.index.shards[index])]}: {member}"


def find_shards(folder: Path, split: str) -> tuple[Path, ...]:
    """``<split>-000000.tar`` and on, in order. Raises UserError that names a missing one."""
    numbered = {}
    for path in folder.glob(f"{split}-*.tar"):
        match = re.fullmatch(rf"{split}-(\d+)\.tar", path.name)
        if match is not None:
            numbered[int(match[1])] = path
    if not numbered:
        raise UserError(f"{folder / split}-000000.tar: missing; expected shards of this form")
    for number in range(max(numbered)):
        if number not in numbered:
            last = numbered[max(numbered)].name
            raise UserError(f"{folder / split}-{number:06d}.tar: missing; found shards to {last}")
    return tuple(numbered[number] for number in sorted(numbered))


def read_index(paths: Sequence[Path], classes: int, cache: Path) -> ShardIndex:
    """The index of tar files, kept in the file ``cache`` for as long as they are not written to.

    A cache that cannot be read is built anew, one that cannot be written is done without. Raises
    UserError for what `walk_shard` finds wrong, and then keeps nothing.
    """
    states = [path.stat() for path in paths]
    # Times too: tar files are padded, so that another order of images may give the same size.
    marks = np.array([(state.st_size, state.st_mtime_ns) for state in states], dtype=np.int64)
    names = np.array([os.fsencode(path.name) for path in paths])
    fields = list(ShardIndex.__dataclass_fields__)
    try:
        with np.load(cache, allow_pickle=False) as known:
            if not _is_stored(known.zip):
                raise ValueError
            same = np.array_equal(known["shard_names"], names)
            same = same and np.array_equal(known["shard_marks"], marks)
            if same and int(known["classes"]) == classes:
                return ShardIndex(**{field: known[field] for field in fields})
    except Exception:  # a damaged file may raise almost anything
        pass
    index = build_index(paths, classes)
    arrays = {field: getattr(index, field) for field in fields}
    try:
        with atomic_path(cache) as temporary, temporary.open("wb") as file:
            np.savez(
                file, shard_names=names, shard_marks=marks, classes=np.array(classes), **arrays
            )
    except UserError:
        pass  # a data set may lie where nobody may write; walking takes minutes, no more
    return index


def _is_stored(archive: zipfile.ZipFile) -> bool:
    """Whether nothing in it unpacks to more than it takes up."""
    return all(info.file_size == info.compress_size for info in archive.infolist())


class _Sample(NamedTuple):
    offset: int
    size: int
    name: bytes
    label: int


def build_index(paths: Sequence[Path], classes: int) -> ShardIndex:
    """Walks every tar file; samples come in the files' order."""
    walked = [walk_shard(path, classes) for path in paths]
    samples = [sample for shard in walked for sample in shard]
    return ShardIndex(
        shards=np.repeat(np.arange(len(paths), dtype=np.int32), [len(shard) for shard in walked]),
        offsets=np.array([sample.offset for sample in samples], dtype=np.int64),
        sizes=np.array([sample.size for sample in samples], dtype=np.int64),
        names=np.array([sample.name for sample in samples], dtype=np.bytes_),
        labels=np.array([sample.label for sample in samples], dtype=np.int64),
    )


def walk_shard(path: Path, classes: int) -> list[_Sample]:
    """Where the images of one tar file lie, and their labels.

    Members that are neither an image nor a label are passed over, as WebDataset does. Raises
    UserError for a damaged or compressed file, an image or a label without the other, an empty
    image, and a label that is no number of 0..classes-1.
    """
    images: dict[str, tuple[int, int, bytes]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, suffix = _key(member.name)
                if not member.isreg() or member.issparse():
                    continue
                if suffix in IMAGE_SUFFIXES:
                    if key in images or not member.size:
                        what = "twice" if key in images else "empty"
                        raise UserError(f"{path}: {member.name}: {what}; expected one image a key")
                    images[key] = (member.offset_data, member.size, os.fsencode(member.name))
                elif suffix == LABEL_SUFFIX:
                    file = tar.extractfile(member)
                    text = file.read(LABEL_BYTES).strip() if file is not None else b""
                    if not text.isdigit() or int(text) >= classes:
                        raise UserError(
                            f"{path}: {member.name}: expected a label of 0 to {classes - 1},"
                            f" found {text!r}"
                        )
                    labels[key] = int(text)
            # The module takes a cut between two members for the end.
            end = tar.offset
        with path.open("rb") as raw:
            raw.seek(end)
            if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise UserError(f"{path}: truncated or altered; expected a tar file's end at {end}")
    except (tarfile.TarError, ValueError, RecursionError) as error:  # offsets that are none
        raise UserError(f"{path}: damaged; expected an uncompressed tar file ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    for key in [*images, *labels]:
        if key not in images or key not in labels:
            lacks = LABEL_SUFFIX if key in images else IMAGE_SUFFIXES[0]
            raise UserError(f"{path}: {key}.{lacks}: missing; expected an image and a label a key")
    return [_Sample(*image, labels[key]) for key, image in images.items()]


def _key(name: str) -> tuple[str, str]:
    """Key and suffix of a member: the suffix begins at the first dot of the last part."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()
