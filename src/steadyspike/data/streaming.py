"""Images too many for memory, read and decoded by worker processes during training.

A batch depends on the indices, seed and epoch alone, never on the workers.
"""

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

from steadyspike.data.augmentation import random_boxes
from steadyspike.data.dataset import Batch
from steadyspike.data.images import WORKERS_VARIABLE, decode, read_file, worker_count
from steadyspike.errors import UserError

SIDE = 224  # of the crop
SHORT_SIDE = 256  # of the resized image whose centre is the test crop
MIN_AREA = 0.08  # of the image's that a random crop keeps

READ_AHEAD = 2  # batches a worker


class Images(Protocol):
    """JPEG or PNG images by index, readable from any process."""

    def read(self, index: int) -> bytes:
        """The bytes of one image file. Raises UserError if it cannot be read."""

    def name(self, index: int) -> str:
        """The image's name in a message."""


@dataclass(frozen=True)
class ImageFiles:
    """One file per image.

    ``names`` (M,) are paths relative to ``folder`` as the file system encodes them, in one array
    because every worker would copy a list of a million strings.
    """

    folder: Path
    names: NDArray[np.bytes_]

    def read(self, index: int) -> bytes:
        return read_file(Path(self.name(index)))

    def name(self, index: int) -> str:
        return str(self.folder / os.fsdecode(bytes(self.names[index])))


@dataclass(frozen=True)
class StreamedSplit:
    """Images, delivered as uint8 (3, 224, 224), and labels, int64 (M,).

    ``crop`` is a random part of each image or its centre. ``workers`` is how many processes
    decode, 0 for none and None for `worker_count`. Batches are on the CPU, channels last, in
    pinned memory if there is a CUDA device. ``digest`` is the SHA-256 of names, sizes and labels.
    """

    images: Images
    labels: Tensor
    crop: Literal["random", "centre"]
    workers: int | None = None
    digest: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        return (3, SIDE, SIDE)

    def gather(
        self, parts: Sequence[Tensor], seed: int | None, epoch: int | None
    ) -> Iterator[Batch]:
        """As `Samples.gather`. Raises UserError that names an image that cannot be decoded."""
        if self.crop == "centre":
            seed = epoch = None
        elif seed is None or epoch is None:
            raise ValueError("a split with random crops needs the seed and the epoch")
        return self._stream(parts, _Reader(self.images, seed, epoch))

    def _stream(self, parts: Sequence[Tensor], reader: "_Reader") -> Iterator[Batch]:
        workers = min(worker_count() if self.workers is None else self.workers, len(parts))
        loader = DataLoader(
            reader,
            batch_size=None,  # the reader is asked for whole batches
            sampler=[part.tolist() for part in parts],
            num_workers=workers,
            prefetch_factor=READ_AHEAD if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_ignore_interrupts,
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
    """Maps a batch of indices to images (N, 3, 224, 224); without a seed, to their centres."""

    def __init__(self, images: Images, seed: int | None, epoch: int | None) -> None:
        self.images, self.seed, self.epoch = images, seed, epoch

    def __getitem__(self, indices: list[int]) -> Tensor | UserError:
        batch = np.empty((len(indices), SIDE, SIDE, 3), dtype=np.uint8)
        try:
            for n, index in enumerate(indices):
                image = decode(self.images.read(index), self.images.name(index))
                if self.seed is None or self.epoch is None:
                    crop = central_crop(image)
                else:
                    crop = random_resized_crop(image, self.seed, self.epoch, index)
                batch[n] = np.asarray(crop)
        except UserError as error:
            return error  # raised here, its message would have the worker's traceback
        return torch.from_numpy(batch).permute(0, 3, 1, 2)


# Cropped and resized as Pillow images: torchvision resizes a tensor to other bits.


def random_resized_crop(image: Image.Image, seed: int, epoch: int, index: int) -> Image.Image:
    """torchvision's RandomResizedCrop(224) of the sample ``index``, with random numbers of ours."""
    from torchvision.transforms.v2 import functional  # takes seconds to import

    (box,) = random_boxes(*image.size, MIN_AREA, seed, epoch, torch.tensor([index])).tolist()
    crop: Image.Image = functional.resized_crop(image, *box, [SIDE, SIDE])
    return crop


def central_crop(image: Image.Image) -> Image.Image:
    """torchvision's Resize(256) and CenterCrop(224)."""
    from torchvision.transforms.v2 import functional  # takes seconds to import

    crop: Image.Image = functional.center_crop(functional.resize(image, [SHORT_SIDE]), [SIDE])
    return crop


def _ignore_interrupts(worker: int) -> None:
    """A terminal sends these to all its processes; the parent handles them."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
