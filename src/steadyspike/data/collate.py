"""From samples to the clip that a network is shown: float (T, N, C, H, W)."""

import torch
from torch import Tensor

from steadyspike.data.augmentation import AUGMENTATIONS, Augmentation
from steadyspike.data.dataset import Dataset
from steadyspike.data.event_augmentation import EVENT_AUGMENTATIONS, SMALL, shrink
from steadyspike.data.loading import to_frames
from steadyspike.errors import UserError


def holds_clips(dataset: Dataset) -> bool:
    """Whether the samples are clips of events (T, C, H, W) rather than images (C, H, W)."""
    return len(dataset.train.shape) == 4


def frame_shape(dataset: Dataset) -> tuple[int, int, int]:
    """(C, H, W) of the frames that a network is shown."""
    if holds_clips(dataset):
        return dataset.train.shape[1], SMALL, SMALL
    channels, height, width = dataset.train.shape
    return channels, height, width


def check(dataset: Dataset, augmentation: str, train_steps: int, test_steps: int) -> None:
    """Raises UserError that names the key if these settings do not suit the data set."""
    known = EVENT_AUGMENTATIONS if holds_clips(dataset) else AUGMENTATIONS
    if augmentation not in known:
        raise UserError(
            f"dataset.augmentation: {dataset.name} has one of {', '.join(known)}, "
            f"got {augmentation!r}"
        )
    if holds_clips(dataset):
        steps = dataset.train.shape[0]
        if train_steps > steps:
            raise UserError(
                f"training.steps: a clip of {dataset.name} has {steps} steps, got {train_steps}"
            )
        if test_steps != steps:
            raise UserError(
                f"evaluation.steps: a clip of {dataset.name} has {steps} steps, got {test_steps}"
            )


def augmentation_for(dataset: Dataset, name: str) -> Augmentation:
    """The augmentation ``name`` of images, or of clips, as the data set has them."""
    return (EVENT_AUGMENTATIONS if holds_clips(dataset) else AUGMENTATIONS)[name]


def training_clip(
    samples: Tensor,
    choices: Tensor,
    dataset: Dataset,
    augmentation: Augmentation,
    *,
    steps: int,
    kept: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Augments samples (N, ...) and makes a clip (T, N, C, H, W) of them, on their device.

    A still image is the same frame at every step. ``choices`` (N, D) are what the augmentation has
    drawn for these samples. Of clips longer than ``steps`` the whole batch keeps the frames
    ``kept`` (steps,), see `kept_steps`.
    """
    if samples.dim() == 4:
        return _still_clip(augmentation.apply(samples, choices), dataset, steps, dtype)
    if kept is not None:
        samples = samples[:, kept]
    return _event_clip(augmentation.apply(samples, choices)).to(dtype)


def evaluation_clip(
    samples: Tensor, dataset: Dataset, *, steps: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Makes a clip (T, N, C, H, W) of samples (N, ...) on their device, nothing random."""
    if samples.dim() == 4:
        return _still_clip(samples, dataset, steps, dtype)
    return _event_clip(shrink(samples)).to(dtype)


def _still_clip(images: Tensor, dataset: Dataset, steps: int, dtype: torch.dtype) -> Tensor:
    frames = to_frames(images, dataset.mean, dataset.std, dtype)
    frames = frames.contiguous(memory_format=torch.channels_last)
    return frames.expand(steps, *frames.shape)


def _event_clip(frames: Tensor) -> Tensor:
    """Event counts (N, T, C, H, W) to (T, N, C, H, W), each frame channels last in memory."""
    steps, batch = frames.shape[1], frames.shape[0]
    flat = frames.transpose(0, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    clip: Tensor = flat.unflatten(0, (steps, batch))
    return clip
