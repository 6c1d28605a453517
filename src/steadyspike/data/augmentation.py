"""Augmentation in batches; each sample's random numbers come from (seed, epoch, index, draw)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from steadyspike.data.counter_rng import CROP_COLUMN, CROP_ROW, FLIP, random_integers
from steadyspike.data.cutout import random_cutout


def random_flip(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Mirrors half of the images (N, ..., H, W) left to right."""
    flipped = random_integers(seed, epoch, indices.to(images.device), FLIP, 2).bool()
    return torch.where(flipped.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)


def random_crop(images: Tensor, seed: int, epoch: int, indices: Tensor, padding: int) -> Tensor:
    """Shifts each image (N, ..., H, W) by up to ``padding`` pixels either way, zeros coming in."""
    height, width = images.shape[-2:]
    device = images.device
    indices = indices.to(device)
    top, left = (
        random_integers(seed, epoch, indices, draw, 2 * padding + 1)
        for draw in (CROP_ROW, CROP_COLUMN)
    )
    padded = F.pad(images.flatten(1, -3), [padding] * 4)  # (N, C, H + 2p, W + 2p)
    sample = torch.arange(len(images), device=device)[:, None, None]  # (N, 1, 1)
    rows = (top[:, None] + torch.arange(height, device=device))[:, :, None]  # (N, H, 1)
    columns = (left[:, None] + torch.arange(width, device=device))[:, None, :]  # (N, 1, W)
    cropped = padded.movedim(1, -1)[sample, rows, columns]  # (N, H, W, C)
    return cropped.movedim(-1, 1).reshape(images.shape)


def _none(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    return images


def _crop_flip(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    return random_flip(random_crop(images, seed, epoch, indices, 4), seed, epoch, indices)


def _crop_cutout_flip(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """In the released code's order: the rectangle is whole, since the crop comes before it."""
    images = random_crop(images, seed, epoch, indices, 4).contiguous()  # what follows is faster
    return random_flip(random_cutout(images, seed, epoch, indices), seed, epoch, indices)


# Images uint8 (N, C, H, W), seed, epoch and the samples' indices (N,) to images of that shape.
AUGMENTATIONS: dict[str, Callable[[Tensor, int, int, Tensor], Tensor]] = {
    "none": _none,
    "flip": random_flip,
    "crop_flip": _crop_flip,
    "crop_cutout_flip": _crop_cutout_flip,
}
