"""Batches of a split in an order that depends on seed and epoch alone, and frames from images."""

import queue
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from steadyspike.data.counter_rng import derive_seed
from steadyspike.data.dataset import Batch, Samples
from steadyspike.snn.shard import Shard

READ_AHEAD = 2  # batches that `read_ahead` keeps waiting


def epoch_order(seed: int, epoch: int, size: int) -> Tensor:
    """The order in which an epoch visits the samples: a permutation of ``size``, int64, CPU."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)


def batches(
    split: Samples,
    order: Tensor,
    batch: int,
    *,
    seed: int | None = None,
    epoch: int | None = None,
    shards: Sequence[Shard | None] | None = None,
) -> Iterator[Batch]:
    """Yields indices (N,), samples uint8 (N, ...) and labels (N,) in the given order.

    All three are on the device of the split's images, or on the CPU for a split that reads files.
    The last batch is smaller if ``batch`` does not divide the order. ``seed`` and ``epoch`` are
    required by splits that crop at random while reading (ImageNet). ``shards`` gives for each batch
    the rows of this process, if there are several.
    """
    order = order.to(split.labels.device)  # once, not for every batch
    parts = [order[start : start + batch] for start in range(0, len(order), batch)]
    if shards is not None:
        parts = [
            part if shard is None else shard.of_whole(part)
            for part, shard in zip(parts, shards, strict=True)
        ]
    return split.gather(parts, seed, epoch)


def to_frames(
    images: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Normalizes uint8 images (N, C, H, W) to ``(images / 255 - mean) / std`` on their device.

    Half precision is rounded once, at the end. torchvision's ``to_dtype`` multiplies by 1/255
    instead of dividing, which gives other bits.
    """
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    shift, scale = (_per_channel(tuple(each), exact, images.device) for each in (mean, std))
    return ((images.to(exact) / 255 - shift) / scale).to(dtype)


@cache
def _per_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(C, 1, 1). Made once: copying to a device waits for it, and a CUDA graph cannot hold that."""
    return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


def read_ahead(batches: Iterator[Batch], depth: int = READ_AHEAD) -> Iterator[Batch]:
    """Yields the same batches, read by a thread up to ``depth`` ahead.

    With a CUDA device they are in pinned memory, for asynchronous copies. Exceptions of
    ``batches`` are raised here; closing this generator stops the thread.
    """
    ready: queue.Queue[Any] = queue.Queue(depth)
    stopped = threading.Event()
    pin = torch.cuda.is_available()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for batch in batches:
                if not put([each.pin_memory() for each in batch] if pin else batch):
                    return
            put(None)
        except BaseException as error:
            put(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            indices, samples, labels = item
            yield indices, samples, labels
    finally:
        stopped.set()
        reader.join(1.0)  # a read that hangs must not keep a run from ending
