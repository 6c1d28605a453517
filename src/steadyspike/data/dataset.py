"""What a data set is to everything outside this package."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

ROOT_VARIABLE = "STEADYSPIKE_DATA"
ROOM = 0.25  # of a GPU's free memory, at most, for the images of one split


class Samples(Protocol):
    """M labelled samples that `loading.batches` visits, in memory (`Split`) or read on the way."""

    @property
    def labels(self) -> Tensor:
        """int64 (M,), in the files' order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample as it is delivered: (C, H, W), or (T, C, H, W) for events."""

    @property
    def digest(self) -> str:
        """SHA-256, one or several, that stand for all samples and labels wherever they lie."""

    def __len__(self) -> int: ...

    def gather(
        self, parts: Sequence[Tensor], seed: int | None, epoch: int | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each part, int64 (N,) of indices: those, their samples (N, *shape), labels (N,).

        All parts are known from the start, so that they can be read ahead. ``seed`` and ``epoch``
        decide a random choice that must be made while reading.
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

    def to(self, device: torch.device) -> "Split":
        """The same on another device, where there is room for it; else as it is."""
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if self.images.nbytes > free * ROOM:
                return self
        return Split(self.images.to(device), self.labels.to(device))

    def gather(
        self, parts: Sequence[Tensor], seed: int | None, epoch: int | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """As `Samples` says, where the images lie; nothing is random here."""
        for part in parts:
            indices = part.to(self.images.device)
            yield indices, self.images[indices], self.labels[indices]


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, with the training images' mean and standard deviation.

    ``mean`` and ``std`` hold one value a channel, on the scale where 255 is 1.
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
        """One SHA-256 of all that is learned from and measured on."""
        facts = (self.name, self.classes, self.mean, self.std, self.train.digest, self.test.digest)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def to(self, device: torch.device) -> "Dataset":
        """With the images in memory on that device, as bytes, where they fit; others stream."""
        train, test = (
            split.to(device) if isinstance(split, Split) else split
            for split in (self.train, self.test)
        )
        return replace(self, train=train, test=test)


@dataclass(frozen=True)
class Source:
    """How one named data set is come by; each function takes the root folder, or None.

    ``load`` reads and checks it. ``fetch`` downloads what is missing, checks everything and
    returns the manifest's path. ``manifest`` checks everything and returns sums and counts.
    All raise UserError with the command that gets the data.
    """

    load: Callable[[Path | None], Dataset]
    fetch: Callable[[Path | None], Path]
    manifest: Callable[[Path | None], dict[str, Any]]


def fetched_root(root: Path | None) -> Path:
    """Where fetched data sets lie: ``root``, else STEADYSPIKE_DATA, else ``datasets``."""
    return root if root is not None else Path(os.environ.get(ROOT_VARIABLE) or "datasets")
