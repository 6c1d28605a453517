"""The types through which the rest of the package uses a data set."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from steadyspike.data.images import read_fitted
from steadyspike.errors import UserError
from steadyspike.variables import data_root

GPU_SHARE = 0.25  # of a GPU's free memory that the images of one split may take

Batch = tuple[Tensor, Tensor, Tensor]  # indices (N,), samples (N, ...), labels (N,)


class Samples(Protocol):
    """M labelled samples: in memory (`Split`), or read from files batch by batch."""

    @property
    def labels(self) -> Tensor:
        """int64 (M,), in the files' order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (C, H, W) for an image, (T, C, H, W) for events."""

    @property
    def digest(self) -> str:
        """Text with the SHA-256 of the samples and labels; the same wherever they lie."""

    def __len__(self) -> int: ...

    def gather(
        self, parts: Sequence[Tensor], seed: int | None, epoch: int | None
    ) -> Iterator[Batch]:
        """Yields a batch for each part, int64 (N,) of indices.

        All parts are given at the start, so that batches can be read ahead. ``seed`` and
        ``epoch`` decide random choices made while reading.
        """


@dataclass(frozen=True)
class Split:
    """Images, uint8 (M, C, H, W) in 0..255, and labels, int64 (M,), in the files' order."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    @property
    def digest(self) -> str:
        """SHA-256 of shape, images and labels."""
        content = hashlib.sha256(str(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            content.update(tensor.cpu().contiguous().numpy().data)
        return content.hexdigest()

    def in_content_order(self) -> "Split":
        """The same samples, sorted by the SHA-256 of label and pixels, on the CPU.

        For data sets whose files come in several forms or orders: neither these nor file names
        decide a result, `digest` is that of a set, and a batch holds many classes, as the live
        thresholds of OTS need.
        """
        images, labels = self.images.cpu().contiguous().numpy(), self.labels.cpu().numpy()
        keys = [
            hashlib.sha256(label.tobytes() + image.tobytes()).digest()
            for label, image in zip(labels, images, strict=True)
        ]
        order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__), dtype=torch.int64)
        return Split(self.images.cpu()[order], self.labels.cpu()[order])

    def to(self, device: torch.device) -> "Split":
        """Copies to a device; returns itself if a GPU has too little free memory."""
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if self.images.nbytes > free * GPU_SHARE:
                return self
        return Split(self.images.to(device), self.labels.to(device))

    def gather(
        self, parts: Sequence[Tensor], seed: int | None, epoch: int | None
    ) -> Iterator[Batch]:
        """As `Samples.gather`, on the images' device; nothing is random here."""
        for part in parts:
            indices = part.to(self.images.device)
            yield indices, self.images[indices], self.labels[indices]


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, with the training images' mean and standard deviation.

    ``mean`` and ``std`` hold one value a channel, for pixel values scaled from 0..255 to 0..1.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Samples
    test: Samples

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def sha256(self) -> str:
        """SHA-256 of the name, classes, normalization and both splits."""
        facts = (self.name, self.classes, self.mean, self.std, self.train.digest, self.test.digest)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def content_sha256(self) -> str | None:
        """`sha256` of what is in memory; None if samples lie in files, whose forms differ."""
        return self.sha256() if isinstance(self.train, Split) else None

    def holding_out(self, count: int) -> "Dataset":
        """A data set whose test split is the last ``count`` training samples, not trained on.

        For choices between experiments, which must not see the test samples. Mean and standard
        deviation stay those of all training samples. UserError if the samples are not in memory,
        or none would be left to train on.
        """
        train = self.train
        if not isinstance(train, Split):
            raise UserError(f"dataset.validation: {self.name} is not held in memory as a whole")
        if count >= len(train):
            raise UserError(
                f"dataset.validation: expected fewer than the {len(train)} training images of "
                f"{self.name}, got {count}"
            )
        kept, held_out = (
            Split(train.images[part], train.labels[part])
            for part in (slice(None, -count), slice(-count, None))
        )
        return replace(self, train=kept, test=held_out)

    def to(self, device: torch.device) -> "Dataset":
        """Copies the splits that are in memory to a device, where they fit."""
        train, test = (
            split.to(device) if isinstance(split, Split) else split
            for split in (self.train, self.test)
        )
        return replace(self, train=train, test=test)


@dataclass(frozen=True)
class Source:
    """The functions of one named data set; each takes the root folder, or None for the default.

    ``load`` reads and checks it. ``fetch`` downloads what is missing, checks everything, writes a
    manifest of checksums and counts and returns its path. Both raise UserError that says how to
    get the data, and take as keywords the options of ``dataset`` in params.yaml that are
    ``required`` or ``optional``.

    ``read_image`` reads an image file as the data set's images were read, for a network that sees
    (C, H, W); None if these are no images.
    """

    load: Callable[..., Dataset]
    fetch: Callable[..., Path]
    read_image: Callable[[Path, tuple[int, int, int]], Image.Image] | None = read_fitted
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def fetched_root(root: Path | None) -> Path:
    """The folder of fetched data sets: ``root``, else STEADYSPIKE_DATA, else ``datasets``."""
    return data_root() if root is None else root
