"""Images too many for memory, read and decoded by worker processes during training.

A batch depends on the indices, seed and epoch alone, never on the workers.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from steadyspike.data.augmentation import random_boxes
from steadyspike.data.dataset import Batch
from steadyspike.data.images import decode, read_file
from steadyspike.data.workers import filled
from steadyspike.variables import worker_count

SIDE = 224  # of the crop
SHORT_SIDE = 256  # of the resized image whose centre is the test crop
MIN_AREA = 0.08  # of the image's that a random crop keeps


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
        return self._stream(parts, seed, epoch)

    def _stream(
        self, parts: Sequence[Tensor], seed: int | None, epoch: int | None
    ) -> Iterator[Batch]:
        from torchvision.transforms.v2 import functional  # noqa: F401 - once, not in every worker

        workers = worker_count() if self.workers is None else self.workers
        fill = partial(_fill, self.images, seed, epoch)
        arrays = filled(fill, [part.tolist() for part in parts], (SIDE, SIDE, 3), workers)
        pin = torch.cuda.is_available()
        with closing(arrays):
            for part, array in zip(parts, arrays, strict=True):
                images = torch.from_numpy(array)
                images = images.pin_memory() if pin else images.clone()
                yield part, images.permute(0, 3, 1, 2), self.labels[part]


def _fill(
    images: Images,
    seed: int | None,
    epoch: int | None,
    indices: list[int],
    out: NDArray[np.uint8],
) -> None:
    """Writes the crops of ``indices`` to ``out`` (N, 224, 224, 3); without a seed, the centres."""
    for n, index in enumerate(indices):
        image = decode(images.read(index), images.name(index))
        if seed is None or epoch is None:
            crop = central_crop(image)
        else:
            crop = random_resized_crop(image, seed, epoch, index)
        out[n] = np.asarray(crop)


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
