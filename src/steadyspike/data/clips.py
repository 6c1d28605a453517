"""Event data sets as clips of frames, integrated once and then mapped from .npy files."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from steadyspike.data.dataset import Batch, Dataset, Source, fetched_root
from steadyspike.data.download import temporary_folder
from steadyspike.data.events import SIDE
from steadyspike.data.loading import read_ahead
from steadyspike.data.manifest import (
    FileSum,
    check_md5,
    check_sum,
    file_sum,
    manifest_of_files,
    read_manifest,
    write_manifest,
)
from steadyspike.errors import UserError
from steadyspike.files import replace_durably

# Counts of events are left as they are: `to_frames` multiplies them by 255 / 255.
MEAN, STD = (0.0, 0.0), (1 / 255, 1 / 255)
SPLITS = ("train", "test")
FRAMES = "{}_frames.npy"
LABELS = "{}_labels.npy"
FILES = tuple(part.format(split) for split in SPLITS for part in (FRAMES, LABELS))
NARROW: np.dtype[Any] = np.dtype("u1")
WIDE: np.dtype[Any] = np.dtype("<u2")


class Clips:
    """M samples of T frames: counts of events (M, T, 2, H, W), mapped from a file, and labels.

    A `Samples` for `loading.batches`. Indexing with a LongTensor or a slice copies those samples
    to the CPU's memory: uint8, or int32 for files with counts above 255.
    """

    def __init__(
        self, frames: NDArray[np.uint8] | NDArray[np.uint16], labels: Tensor, digest: str
    ) -> None:
        self._frames = frames
        self.labels = labels  # int64 (M,)
        self.digest = digest  # of the files, from their manifest

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, 2, H, W)."""
        return tuple(self._frames.shape[1:])

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        chosen = index.cpu().numpy() if isinstance(index, Tensor) else np.arange(len(self))[index]
        rows = np.asarray(self._frames[chosen])  # a copy
        # torch's uint16 lacks most operations.
        return torch.from_numpy(rows if rows.dtype == NARROW else rows.astype(np.int32))

    def gather(
        self, parts: Sequence[Tensor], seed: int | None, epoch: int | None
    ) -> Iterator[Batch]:
        """As `Samples.gather`, on the CPU and read ahead; nothing is random here."""
        here = (part.cpu() for part in parts)
        yield from read_ahead((part, self[part], self.labels[part]) for part in here)


def write_clips(
    folder: Path,
    split: str,
    steps: int,
    labels: Sequence[int],
    clips: Iterable[tuple[int, NDArray[np.int64]]],
) -> None:
    """Writes the frames and labels of one split.

    ``clips`` yields the position and counts (T, 2, H, W) of each sample once, in any order. The
    file holds uint8 if no count is above 255, else uint16. Raises UserError for a count above
    65,535.
    """
    path, wide = folder / FRAMES.format(split), folder / f"{split}_frames.wide"
    shape = (len(labels), steps, 2, SIDE, SIDE)
    size, highest = int(np.prod(shape[1:])), 0
    # Written rather than mapped: a full disk is then an error and not a signal.
    with wide.open("wb") as file:
        for position, counts in clips:
            highest = max(highest, int(counts.max()))
            if highest > np.iinfo(WIDE).max:
                raise UserError(
                    f"{path}: expected at most {np.iinfo(WIDE).max} events a pixel and frame,"
                    f" found {highest}"
                )
            file.seek(position * size * WIDE.itemsize)
            file.write(counts.astype(WIDE).tobytes())
    dtype = NARROW if highest <= np.iinfo(NARROW).max else WIDE
    with wide.open("rb") as source, path.open("wb") as file:
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)
        while sample := source.read(size * WIDE.itemsize):
            file.write(np.frombuffer(sample, WIDE).astype(dtype).tobytes())
    wide.unlink()
    np.save(folder / LABELS.format(split), np.array(labels, "<i8"))


@dataclass(frozen=True)
class EventDataset:
    """An event data set in ``<root>/<name>/`` and ``<root>/<name>.manifest.json``.

    ``archives`` gives MD5 and address of each file that has to be downloaded by hand: the
    publishers give no SHA-256, and files are downloaded automatically only if theirs is known.
    ``convert`` is given the folder of the archives and a temporary folder in which it calls
    `write_clips` for both splits; it returns further entries for the manifest.
    """

    name: str
    steps: int
    classes: tuple[str, ...]
    archives: Mapping[str, tuple[str, str]]
    convert: Callable[[Path, Path], dict[str, Any]]

    def source(self) -> Source:
        return Source(self.load, self.fetch, read_image=None)

    def load(self, root: Path | None) -> Dataset:
        """The clips (M, T, 2, 128, 128). Frames are checked by size: hashing takes minutes."""
        root = fetched_root(root)
        files = self._checked(root, whole=False)["files"]
        train, test = (
            self.open_split(
                root / self.name,
                split,
                " ".join(files[part.format(split)]["sha256"] for part in (FRAMES, LABELS)),
            )
            for split in SPLITS
        )
        return Dataset(self.name, self.classes, MEAN, STD, train, test)

    def fetch(self, root: Path | None) -> Path:
        """Checks the downloaded archives and integrates their recordings to clips, once.

        The archives are kept; they may be removed afterwards. Raises UserError that says what to
        download and where to put it.
        """
        root = fetched_root(root)
        folder, path = root / self.name, self._path(root)
        if path.is_file() and all((folder / name).is_file() for name in FILES):
            self._checked(root, whole=True)
            return path
        missing = [name for name in self.archives if not (folder / name).is_file()]
        if missing:
            places = ", ".join(
                f"{name} (MD5 {self.archives[name][0]}) from {self.archives[name][1]}"
                for name in missing
            )
            raise UserError(
                f"{folder / missing[0]}: missing; its publisher gives no SHA-256 to download it by:"
                f" get with a browser {places}; put all into {folder} and run `steadyspike fetch"
                f" {self.name}` again: it checks the MD5 of every archive and integrates the"
                " recordings to frames"
            )
        sources = {}
        for name, (md5, _) in self.archives.items():
            archive = folder / name
            check_md5(archive, md5, f"remove it and run `steadyspike fetch {self.name}`")
            sources[name] = {"md5": md5, **asdict(file_sum(archive))}
        path.unlink(missing_ok=True)  # written last: while it is missing, so is the data set
        with temporary_folder(folder / ".converted") as temporary:
            facts = self.convert(folder, temporary)
            for name in FILES:
                replace_durably(temporary / name, folder / name)
        counts = {split: len(self.open_split(folder, split)) for split in SPLITS}
        sums = {name: file_sum(folder / name) for name in FILES}
        own = {"name": self.name, "steps": self.steps, "counts": counts, "sources": sources}
        write_manifest(path, manifest_of_files(sums, **own, **facts))
        return path

    def open_split(self, folder: Path, split: str, digest: str = "") -> Clips:
        """Maps one split. Raises UserError for files of another type or shape."""
        frames_path, labels_path = (folder / part.format(split) for part in (FRAMES, LABELS))
        frames, labels = self._mapped(frames_path), self._mapped(labels_path)
        if frames.shape[1:] != (self.steps, 2, SIDE, SIDE) or frames.dtype not in (NARROW, WIDE):
            raise UserError(
                f"{frames_path}: altered; expected uint8 or uint16 of {self.steps}x2x{SIDE}x{SIDE}"
                f" a sample, found {frames.dtype} of the shape {frames.shape}; {self._again}"
            )
        if labels.shape != frames.shape[:1] or labels.dtype != np.int64:
            raise UserError(
                f"{labels_path}: altered; expected {len(frames)} labels of int64, found"
                f" {labels.dtype} of the shape {labels.shape}; {self._again}"
            )
        return Clips(frames, torch.from_numpy(np.array(labels)), digest)

    def _mapped(self, path: Path) -> NDArray[Any]:
        try:
            mapped: NDArray[Any] = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: altered; expected a .npy file; {self._again}") from error
        return mapped

    def _checked(self, root: Path, whole: bool) -> dict[str, Any]:
        """Checks the files and returns their manifest; frames by size only, unless ``whole``."""
        get = f"get it with `steadyspike fetch {self.name}`"
        manifest_path = self._path(root)
        manifest = read_manifest(manifest_path, get)
        for path in (root / self.name / name for name in FILES):
            entry = manifest["files"].get(path.name)
            if entry is None or manifest.get("steps") != self.steps:
                raise UserError(
                    f"{manifest_path}: altered; expected {path.name} with steps {self.steps};"
                    f" {self._again}"
                )
            if not path.is_file():
                raise UserError(f"{path}: missing; {get}")
            expected = FileSum(entry["sha256"], entry["size"])
            hashed = whole or path.name.endswith(LABELS.format(""))
            actual = file_sum(path) if hashed else FileSum(expected.sha256, path.stat().st_size)
            check_sum(path, actual, expected, self._again)
        return manifest

    def _path(self, root: Path) -> Path:
        return root / f"{self.name}.manifest.json"

    @property
    def _again(self) -> str:
        return f"remove it and run `steadyspike fetch {self.name}`"
