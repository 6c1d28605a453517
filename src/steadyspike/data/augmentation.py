"""Augmentation of images; each sample's random numbers come from (seed, epoch, index, draw).

Flip, crop and cutout work on whole batches, where torchvision's transforms would draw one set of
numbers for all samples.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from steadyspike.data.counter_rng import (
    CROP_COLUMN,
    CROP_ROW,
    CUTOUT,
    CUTOUT_AREA,
    CUTOUT_ASPECT,
    CUTOUT_COLOUR,
    CUTOUT_COLUMN,
    CUTOUT_ROW,
    FLIP,
    RESIZED_CROP,
    random_integers,
    random_reals,
)

CUTOUT_AREAS = (0.02, 0.4)  # of the image's
CUTOUT_ASPECTS = (0.4, 2.5)  # height / width

CROP_ASPECTS = (3 / 4, 4 / 3)  # width / height of a resized crop
ATTEMPTS, NUMBERS = 10, 4  # a crop that does not fit is drawn again: area, aspect, top, left


def random_flip(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Mirrors half of the images (N, ..., H, W) left to right."""
    flipped = random_integers(seed, epoch, indices.to(images.device), FLIP, 2).bool()
    return torch.where(flipped.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)


def random_crop(images: Tensor, seed: int, epoch: int, indices: Tensor, padding: int) -> Tensor:
    """Shifts each image (N, ..., H, W) by up to ``padding`` pixels either way, filling with 0."""
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


def random_cutout(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Paints one rectangle over half of the images, uint8 (N, ..., C, H, W).

    Cutout (DeVries and Taylor, arXiv:1708.04552) as the released code takes it from torchtoolbox
    0.1.8: the area is uniform in 0.02..0.4 of the image's, height / width in 0.4..2.5, both sides
    rounded down, the place uniform over those inside the image. The colour is one number from 0
    to 255, which Pillow's ``paste`` takes for the first channel, with 0 for the others: the
    rectangles are shades of red.
    """
    height, width = images.shape[-2:]
    device = images.device
    indices = indices.to(device)

    def real(draw: int, low: float, high: float) -> Tensor:
        return random_reals(seed, epoch, indices, draw, low, high)

    def integer(draw: int, below: int | Tensor) -> Tensor:
        return random_integers(seed, epoch, indices, draw, below)

    area = real(CUTOUT_AREA, *CUTOUT_AREAS) * (height * width)
    aspect = real(CUTOUT_ASPECT, *CUTOUT_ASPECTS)
    # The clamp is for images far from square, which the original refuses.
    tall = (area * aspect).sqrt().long().clamp(max=height)  # (N,)
    wide = (area / aspect).sqrt().long().clamp(max=width)
    top = integer(CUTOUT_ROW, height + 1 - tall)
    left = integer(CUTOUT_COLUMN, width + 1 - wide)
    tall *= integer(CUTOUT, 2)  # half of the images get a rectangle of height 0

    rows, columns = (torch.arange(size, device=device) for size in (height, width))
    inside_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])  # (N, H)
    inside_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])  # (N, W)
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]  # (N, H, W)
    colour = images.new_zeros(len(images), images.shape[-3])  # (N, C)
    colour[:, 0] = integer(CUTOUT_COLOUR, 256).to(images.dtype)
    between = [1] * (images.ndim - 4)
    return torch.where(
        inside.view(-1, *between, 1, height, width),
        colour.view(-1, *between, colour.shape[1], 1, 1),
        images,
    )


def random_boxes(
    width: int, height: int, min_area: float, seed: int, epoch: int, indices: Tensor
) -> Tensor:
    """Crops of an image as torchvision's RandomResizedCrop(scale=(min_area, 1)) draws them.

    The area is uniform in min_area..1 of the image's, the logarithm of width / height in that of
    3/4..4/3, the place over those inside. The first of ten attempts that fits is taken, else the
    largest central crop of such an aspect.

    Returns int64 (N, 4) for sample indices (N,): top, left, height and width in pixels.
    """
    draws = torch.arange(RESIZED_CROP, RESIZED_CROP + ATTEMPTS * NUMBERS, device=indices.device)
    numbers = random_reals(seed, epoch, indices[:, None], draws)  # (N, 40)
    area, aspect, top, left = numbers.view(-1, ATTEMPTS, NUMBERS).unbind(-1)  # (N, 10)
    pixels = width * height * (min_area + (1.0 - min_area) * area)
    low, high = (math.log(ratio) for ratio in CROP_ASPECTS)
    ratio = torch.exp(low + (high - low) * aspect)
    wide, tall = (pixels * ratio).sqrt().round().long(), (pixels / ratio).sqrt().round().long()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    top = (top * (height - tall + 1)).long()
    left = (left * (width - wide + 1)).long()
    attempts = torch.stack([top, left, tall, wide], -1)  # (N, 10, 4)
    first = fits.int().argmax(1)  # (N,), the first of equals
    chosen = attempts[torch.arange(len(indices), device=indices.device), first]  # (N, 4)
    central = torch.tensor(_central_box(width, height), device=indices.device)
    return torch.where(fits.any(1, keepdim=True), chosen, central)


def _central_box(width: int, height: int) -> tuple[int, int, int, int]:
    wide, tall = width, height
    if width / height < CROP_ASPECTS[0]:
        tall = round(width / CROP_ASPECTS[0])
    elif width / height > CROP_ASPECTS[1]:
        wide = round(height * CROP_ASPECTS[1])
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def _none(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    return images


def _crop_flip(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    return random_flip(random_crop(images, seed, epoch, indices, 4), seed, epoch, indices)


def _crop_cutout_flip(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """In the released code's order: no part of the rectangle is cropped away."""
    images = random_crop(images, seed, epoch, indices, 4).contiguous()  # what follows is faster
    return random_flip(random_cutout(images, seed, epoch, indices), seed, epoch, indices)


# Each maps images uint8 (N, C, H, W), seed, epoch and sample indices (N,) to images of that shape.
AUGMENTATIONS: dict[str, Callable[[Tensor, int, int, Tensor], Tensor]] = {
    "none": _none,
    "flip": random_flip,
    "crop_flip": _crop_flip,
    "crop_cutout_flip": _crop_cutout_flip,
}
