"""From a split to batches of frames; the order depends on seed and epoch alone."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from steadyspike.data.dataset import Samples
from steadyspike.data.seeds import derive_seed
from steadyspike.snn.shard import Shard


def epoch_order(seed: int, epoch: int, size: int) -> Tensor:
    """The order in which an epoch visits the samples: a permutation of ``size``, int64, CPU."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)


def batches(
    split: Samples,
    order: Tensor,
    batch: int,
    drop_last: bool = False,
    *,
    seed: int | None = None,
    epoch: int | None = None,
    shards: Sequence[Shard | None] | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields indices (N,), images uint8 (N, C, H, W) and labels (N,) in the given order.

    All three lie where the split's images lie; a split that reads its images delivers them in
    the processor's memory. The last batch is smaller where ``batch`` does not divide the order,
    or left out with ``drop_last``. ``seed`` and ``epoch`` are for a split that chooses at random
    while reading (ImageNet's crops), which refuses to go without. ``shards`` tells of each batch
    which rows are wanted here, the others being another process's.
    """
    order = order.to(split.labels.device)  # once, not for every batch
    parts = [order[start : start + batch] for start in range(0, len(order), batch)]
    if drop_last and parts and len(parts[-1]) < batch:
        parts.pop()
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

    Half precision is rounded once, at the end.
    """
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    shift, scale = (
        torch.tensor(values, dtype=exact, device=images.device).view(-1, 1, 1)
        for values in (mean, std)
    )
    return ((images.to(exact) / 255 - shift) / scale).to(dtype)
