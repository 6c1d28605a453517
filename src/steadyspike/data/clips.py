"""Clips of event frames, integrated once and then read from a file mapped into memory."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from steadyspike.data.archive import ArchiveSum
from steadyspike.data.events import SIDE
from steadyspike.data.manifest import (
    FileSum,
    check_sum,
    file_sum,
    manifest_of_files,
    read_manifest,
    write_manifest,
)
from steadyspike.data.prefetch import read_ahead
from steadyspike.errors import UserError
from steadyspike.files import atomic_path, write_atomically

SPLITS = ("train", "test")
NARROW: np.dtype[Any] = np.dtype("u1")
WIDE: np.dtype[Any] = np.dtype("<u2")
# (split, the sample's place in it, its counts (T, 2, H, W))
Clip = tuple[str, int, NDArray[np.int64]]


class Clips:
    """M samples of T frames: counts of events (M, T, 2, H, W), mapped from a file, and labels.

    A `Samples` for `loading.batches`. Indexing with a LongTensor or a slice reads those samples
    and copies them to the processor's memory: uint8, or int32 where the file has counts past 255.
    """

    def __init__(
        self,
        frames: NDArray[np.uint8] | NDArray[np.uint16],
        labels: Tensor,
        digest: str,
    ) -> None:
        self._frames = frames
        self.labels = labels  # int64 (M,)
        self.digest = digest  # of the files, as their manifest has it

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, 2, H, W)."""
        return tuple(self._frames.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self._frames.dtype == NARROW else torch.int32

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        rows = self._frames[index.cpu().numpy() if isinstance(index, Tensor) else index]
        # torch's uint16 lacks most operations.
        return torch.from_numpy(np.array(rows, np.uint8 if rows.dtype == NARROW else np.int32))

    def gather(
        self, parts: Sequence[Tensor], seed: int | None, epoch: int | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """As `Samples` says, in the processor's memory, read ahead; nothing is random here."""
        here = (part.cpu() for part in parts)
        read = ((indices, self[indices], self.labels[indices]) for indices in here)
        yield from read_ahead(read)


class _Writer:
    """A .npy file (M, T, 2, H, W), filled sample by sample.

    It holds uint8 until a count passes 255 and uint16 from then on, so that its type depends on
    the data and not on their order. It is written, not mapped: a full disk is then an error and
    not a signal.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.missing = set(range(shape[0]))
        self.dtype, self.file = NARROW, path.open("w+b")
        self._begin()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()

    def put(self, place: int, counts: NDArray[np.int64]) -> None:
        """Writes the sample of that place, each exactly once."""
        highest = counts.max()
        if highest > np.iinfo(np.uint16).max:
            raise UserError(
                f"{self.path}: expected at most {np.iinfo(np.uint16).max} events a pixel and frame,"
                f" found {highest}"
            )
        if highest > np.iinfo(np.uint8).max and self.dtype == NARROW:
            self._widen()
        self.missing.remove(place)
        self._write(place, counts)

    def _begin(self) -> None:
        header = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False}
        npy.write_array_header_1_0(self.file, {**header, "shape": self.shape})
        self.start = self.file.tell()
        self.row = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        self.file.truncate(self.start + self.shape[0] * self.row)

    def _write(self, place: int, counts: NDArray[Any]) -> None:
        self.file.seek(self.start + place * self.row)
        self.file.write(counts.astype(self.dtype).tobytes())

    def _widen(self) -> None:
        narrow = self.path.with_name(f"{self.path.name}.narrow")
        self.file.close()
        self.path.rename(narrow)
        try:
            self.dtype, self.file = WIDE, self.path.open("w+b")
            self._begin()
            written = np.load(narrow, mmap_mode="r")
            for place in set(range(self.shape[0])) - self.missing:
                self._write(place, written[place])
        finally:
            narrow.unlink()


def write_clips(
    folder: Path, steps: int, labels: Mapping[str, Sequence[int]], clips: Iterable[Clip]
) -> None:
    """Writes the frames and labels of both splits, all of them or none.

    ``labels`` says how many samples each split has; ``clips`` brings each once, in any order. An
    error while they are made leaves no file behind.
    """
    with ExitStack() as files:
        writers = {}
        for split, known in labels.items():
            temporary = files.enter_context(atomic_path(folder / f"{split}_frames.npy"))
            shape = (len(known), steps, 2, SIDE, SIDE)
            writers[split] = files.enter_context(_Writer(temporary, shape))
        for split, place, counts in clips:
            writers[split].put(place, counts)
        assert not any(writer.missing for writer in writers.values())
    for split, known in labels.items():
        packed = io.BytesIO()
        np.save(packed, np.array(known, "<i8"))
        write_atomically(folder / f"{split}_labels.npy", packed.getvalue())


class ClipStore:
    """The clips of one data set: ``<root>/<name>/`` and ``<root>/<name>.manifest.json``."""

    def __init__(self, root: Path, name: str, steps: int) -> None:
        self.folder = root / name
        self.path = root / f"{name}.manifest.json"
        self.name, self.steps = name, steps
        self.get = f"get it with `steadyspike fetch {name}`"
        self.again = f"remove it and run `steadyspike fetch {name}`"

    @property
    def files(self) -> list[Path]:
        names = [f"{split}_{part}.npy" for split in SPLITS for part in ("frames", "labels")]
        return [self.folder / name for name in names]

    def complete(self) -> bool:
        """Whether manifest and files are all there, whatever they hold."""
        return all(path.is_file() for path in (self.path, *self.files))

    def begin(self) -> None:
        """Withdraws the manifest before its files change: they are no longer vouched for."""
        self.path.unlink(missing_ok=True)

    def finish(self, sources: Mapping[str, ArchiveSum], **facts: Any) -> None:
        """Writes the manifest, once the files are complete. Archives by name, and what is known."""
        splits = {split: self.split(split) for split in SPLITS}
        origins = {
            name: {"md5": known.md5, **asdict(known.content)} for name, known in sources.items()
        }
        manifest = manifest_of_files(
            {path.name: file_sum(path) for path in self.files},
            name=self.name,
            steps=self.steps,
            counts={split: len(data) for split, data in splits.items()},
            sources=origins,
            **facts,
        )
        write_manifest(self.path, manifest)

    def verified(self) -> dict[str, Any]:
        """The manifest, every byte of its files checked."""
        return self._checked(whole=True)

    def opened(self) -> dict[str, Clips]:
        """Both splits, in a time that does not grow with the frames: they are checked by size."""
        return self._splits(self._checked(whole=False)["files"])

    def _splits(self, sums: Mapping[str, Mapping[str, Any]]) -> dict[str, Clips]:
        """Both, with the sums of their files."""
        return {
            split: self.split(
                split,
                " ".join(
                    sums[path.name]["sha256"] for path in self.files if path.name.startswith(split)
                ),
            )
            for split in SPLITS
        }

    def split(self, split: str, digest: str = "") -> Clips:
        """One split, its form checked; ``digest`` stands for its files."""
        frames_path, labels_path = (self.folder / f"{split}_{p}.npy" for p in ("frames", "labels"))
        frames = self._array(frames_path, mapped=True)
        labels = self._array(labels_path, mapped=False)
        if frames.shape[1:] != (self.steps, 2, SIDE, SIDE) or frames.dtype not in (NARROW, WIDE):
            raise UserError(
                f"{frames_path}: altered; expected uint8 or uint16 of {self.steps}x2x{SIDE}x{SIDE}"
                f" a sample, found {frames.dtype} of the shape {frames.shape}; {self.again}"
            )
        if labels.shape != frames.shape[:1] or labels.dtype != np.int64:
            raise UserError(
                f"{labels_path}: altered; expected {len(frames)} labels of int64, found"
                f" {labels.dtype} of the shape {labels.shape}; {self.again}"
            )
        return Clips(frames, torch.from_numpy(labels), digest)

    def _checked(self, whole: bool) -> dict[str, Any]:
        manifest = read_manifest(self.path, self.get)
        for path in self.files:
            entry = manifest["files"].get(path.name)
            if entry is None or manifest.get("steps") != self.steps:
                raise UserError(
                    f"{self.path}: altered; expected {path.name} with steps {self.steps};"
                    f" {self.again}"
                )
            if not path.is_file():
                raise UserError(f"{path}: missing; {self.get}")
            expected = FileSum(entry["sha256"], entry["size"])
            small = whole or path.name.endswith("_labels.npy")
            actual = file_sum(path) if small else FileSum(expected.sha256, path.stat().st_size)
            check_sum(path, actual, expected, self.again)
        return manifest

    def _array(self, path: Path, mapped: bool) -> NDArray[Any]:
        try:
            # Mapped in any case: a header may promise more than there is memory for.
            array: NDArray[Any] = np.load(path, mmap_mode="r")
            return array if mapped else np.array(array)
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing; {self.get}") from error
        except Exception as error:  # a damaged file may raise almost anything
            raise UserError(f"{path}: altered; expected a .npy file; {self.again}") from error
