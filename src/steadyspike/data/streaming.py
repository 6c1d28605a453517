"""Samples too many for memory: read and decoded by worker processes while the network trains.

What a batch holds depends on the indices, seed and epoch alone, never on the workers.
"""

import io
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from steadyspike.data.resized_crop import (
    SIDE,
    Attempts,
    crop_numbers,
    middle_crop,
    random_resized_crop,
)
from steadyspike.errors import UserError

WORKERS_VARIABLE = "STEADYSPIKE_WORKERS"
MOST_WORKERS = 16
READ_AHEAD = 2  # batches a worker
MOST_PIXELS = 1 << 26  # of an image: 200 MB


class Store(Protocol):
    """Image files by index; it travels to the workers."""

    def read(self, index: int) -> bytes:
        """The bytes of one image file. Raises UserError where it cannot be read."""

    def name(self, index: int) -> str:
        """What to call it in a message."""


@dataclass(frozen=True)
class FileStore:
    """Images that are files, ``names`` (M,) relative to a folder, as the file system spells them.

    In one array: a list of a million strings would be copied by every worker that looks at it.
    """

    folder: Path
    names: NDArray[np.bytes_]

    def read(self, index: int) -> bytes:
        path = Path(self.name(index))
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error

    def name(self, index: int) -> str:
        return str(self.folder / os.fsdecode(bytes(self.names[index])))


@dataclass(frozen=True)
class StreamedSplit:
    """Images, delivered as uint8 (3, 224, 224), and labels, int64 (M,), in the files' order.

    ``crop`` is a random part of each image or its middle. ``workers`` is how many processes
    decode, 0 for none; None leaves it to `worker_count`. The images lie in the processor's
    memory, pinned where there is a CUDA device, channels last.
    """

    store: Store
    labels: Tensor
    crop: Literal["random", "middle"]
    workers: int | None = None
    digest: str = ""  # of the files, as the one who has listed them knows it

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        return (3, SIDE, SIDE)

    def gather(
        self, parts: Sequence[Tensor], seed: int | None, epoch: int | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """As `Samples` says. Raises UserError that names an image that cannot be decoded."""
        if self.crop == "middle":
            seed = epoch = None
        elif seed is None or epoch is None:
            raise ValueError("a split with random crops needs the seed and the epoch")
        return self._stream(parts, _Reader(self.store, seed, epoch))

    def _stream(
        self, parts: Sequence[Tensor], reader: "_Reader"
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        workers = min(worker_count() if self.workers is None else self.workers, len(parts))
        loader = DataLoader(
            reader,
            batch_size=None,  # the reader is asked for whole batches
            sampler=[part.tolist() for part in parts],
            num_workers=workers,
            prefetch_factor=READ_AHEAD if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_interrupts_to_the_parent,
            generator=torch.Generator(),  # or it would draw from the global one
        )
        try:
            for part, images in zip(parts, loader, strict=True):
                if isinstance(images, UserError):
                    raise images
                yield part, images, self.labels[part]
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                f"a process that decodes images died; expected shared memory for"
                f" {workers * READ_AHEAD} batches: give a container more (--shm-size=16g) or set"
                f" {WORKERS_VARIABLE} below {workers}"
            ) from error


class _Reader(TorchDataset[Tensor | UserError]):
    """Indices to images (N, 3, 224, 224); with no seed, the middle of each."""

    def __init__(self, store: Store, seed: int | None, epoch: int | None) -> None:
        self.store, self.seed, self.epoch = store, seed, epoch

    def __getitem__(self, indices: list[int]) -> Tensor | UserError:
        images = np.empty((len(indices), SIDE, SIDE, 3), dtype=np.uint8)
        numbers: Sequence[Attempts | None] = [None] * len(indices)
        if self.seed is not None and self.epoch is not None:
            numbers = crop_numbers(self.seed, self.epoch, torch.tensor(indices)).tolist()
        try:
            for n, (index, attempts) in enumerate(zip(indices, numbers, strict=True)):
                images[n] = decode(self.store.read(index), self.store.name(index), attempts)
        except UserError as error:
            return error  # raised here, it would come out with the worker's traceback in its line
        return torch.from_numpy(images).permute(0, 3, 1, 2)


def decode(raw: bytes, name: str, attempts: Attempts | None) -> NDArray[np.uint8]:
    """A JPEG or PNG file to uint8 (224, 224, 3): a random part by ``attempts``, or the middle.

    Raises UserError that names a file that is not a whole image.
    """
    try:
        with Image.open(io.BytesIO(raw), formats=("JPEG", "PNG")) as file:
            if file.width * file.height > MOST_PIXELS:
                raise ValueError(f"more than {MOST_PIXELS} pixels")
            image = file.convert("RGB")  # a few of ImageNet's are grey or CMYK
    except Exception as error:  # a damaged file may raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: corrupt; expected a JPEG or PNG image ({reason})") from error
    crop = middle_crop(image) if attempts is None else random_resized_crop(image, attempts)
    return np.asarray(crop)


def worker_count() -> int:
    """How many processes decode: STEADYSPIKE_WORKERS, else this process's share of processors.

    Raises UserError for a variable that is no number.
    """
    told = os.environ.get(WORKERS_VARIABLE)
    if told:
        if not told.isdecimal():
            raise UserError(
                f"{WORKERS_VARIABLE}: expected how many processes decode images, found {told!r}"
            )
        return int(told)
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    trainers = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # torchrun's processes here
    return max(1, min(MOST_WORKERS, here // trainers))


def _leave_interrupts_to_the_parent(worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # which a terminal sends to all
        signal.signal(number, signal.SIG_IGN)
