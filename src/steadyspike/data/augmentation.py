"""Augmentation of images; each sample's random numbers come from (seed, epoch, index, draw).

Flip, crop and cutout work on whole batches, where torchvision's transforms would draw one set of
numbers for all samples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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

PADDING = 4  # pixels on each side of an image that is cropped

CUTOUT_AREAS = (0.02, 0.4)  # of the image's
CUTOUT_ASPECTS = (0.4, 2.5)  # height / width

CROP_ASPECTS = (3 / 4, 4 / 3)  # width / height of a resized crop
ATTEMPTS, NUMBERS = 10, 4  # a crop that does not fit is drawn again: area, aspect, top, left


@dataclass(frozen=True)
class Augmentation:
    """An augmentation in two parts: drawing what happens to each sample, and doing it.

    An epoch's choices are drawn all at once, since drawing takes many operations on few numbers.

    Args:
        draw: seed, epoch, sample indices (N,) and the shape of a sample to choices (N, D), on the
            indices' device.
        apply: samples (N, ...) and their choices (N, D) to the augmented samples. It reads nothing
            on the host, so that a CUDA graph may contain it.
    """

    draw: Callable[[int, int, Tensor, Sequence[int]], Tensor]
    apply: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, samples: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
        """Draws for samples (N, ...) of these indices and applies what was drawn."""
        choices = self.draw(seed, epoch, indices.to(samples.device), samples.shape[1:])
        return self.apply(samples, choices)


def draw_nothing(seed: int, epoch: int, indices: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, 0): where nothing is random."""
    return indices.new_empty(len(indices), 0)


def _draw_flip(seed: int, epoch: int, indices: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, 1): 1 for half of the images, to be mirrored left to right."""
    return random_integers(seed, epoch, indices, FLIP, 2)[:, None]


def _draw_crop_flip(seed: int, epoch: int, indices: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, 3): top and left in the padded image, and whether the crop is mirrored."""
    place = [
        random_integers(seed, epoch, indices, draw, 2 * PADDING + 1)
        for draw in (CROP_ROW, CROP_COLUMN)
    ]
    return torch.stack([*place, random_integers(seed, epoch, indices, FLIP, 2)], 1)


def _draw_crop_cutout_flip(seed: int, epoch: int, indices: Tensor, shape: Sequence[int]) -> Tensor:
    """(N, 8): of the crop, then of a rectangle in the mirrored crop.

    In the released code the mirror comes last, and no part of the rectangle is cropped away.
    """
    height, width = shape[-2:]
    crop = _draw_crop_flip(seed, epoch, indices, shape)
    rectangles = random_rectangles(height, width, seed, epoch, indices)
    top, bottom, left, right, colour = rectangles.unbind(1)
    mirrored = torch.stack([top, bottom, width - right, width - left, colour], 1)
    return torch.cat([crop, torch.where(crop[:, 2:] == 1, mirrored, rectangles)], 1)


def random_rectangles(height: int, width: int, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Draws a rectangle for half of the images, to be painted over.

    Cutout (DeVries and Taylor, arXiv:1708.04552) as the released code takes it from torchtoolbox
    0.1.8: the area is uniform in 0.02..0.4 of the image's, height / width in 0.4..2.5, both sides
    rounded down, the place uniform over those inside the image. The colour is one number from 0
    to 255.

    Returns int64 (N, 5) for sample indices (N,): top, bottom, left, right and colour. The other
    images' rectangles have a height of 0.
    """

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
    tall *= integer(CUTOUT, 2)
    return torch.stack([top, top + tall, left, left + wide, integer(CUTOUT_COLOUR, 256)], 1)


def _flip(images: Tensor, choices: Tensor) -> Tensor:
    mirrored = choices[:, 0].bool().view(-1, *[1] * (images.ndim - 1))
    return torch.where(mirrored, images.flip(-1), images)


def _crop_flip(images: Tensor, choices: Tensor) -> Tensor:
    """Shifts images (N, ..., H, W), filling with 0, and mirrors some, in one look-up."""
    height, width = images.shape[-2:]
    top, left, mirrored = choices[..., None].unbind(1)  # (N, 1)
    padded = F.pad(images.flatten(1, -3), [PADDING] * 4)  # (N, C, H + 2p, W + 2p)
    sample, row, column = (
        torch.arange(size, device=images.device) for size in (len(images), height, width)
    )
    rows = top + row  # (N, H)
    columns = left + (mirrored * (width - 1) - column).abs()  # (N, W), from the right if mirrored
    places = (sample[:, None, None], rows[:, :, None], columns[:, None, :])
    cropped = padded.movedim(1, -1)[places]  # (N, H, W, C)
    return cropped.movedim(-1, 1).reshape(images.shape)


def paint(images: Tensor, rectangles: Tensor) -> Tensor:
    """Paints rectangles (N, 5) of `random_rectangles` over images, uint8 (N, ..., C, H, W).

    Pillow's ``paste`` takes their colour for the first channel, with 0 for the others: they are
    shades of red.
    """
    height, width = images.shape[-2:]
    top, bottom, left, right, shade = rectangles[..., None].unbind(1)  # (N, 1)
    row, column = (torch.arange(size, device=images.device) for size in (height, width))
    rows = (row >= top) & (row < bottom)  # (N, H)
    columns = (column >= left) & (column < right)  # (N, W)
    inside = rows[:, :, None] & columns[:, None, :]  # (N, H, W)
    colour = F.pad(shade.to(images.dtype), [0, images.shape[-3] - 1])  # (N, C)
    between = [1] * (images.ndim - 4)
    return torch.where(
        inside.view(-1, *between, 1, height, width),
        colour.view(-1, *between, colour.shape[1], 1, 1),
        images,
    )


def _crop_cutout_flip(images: Tensor, choices: Tensor) -> Tensor:
    images = _crop_flip(images, choices[:, :3]).contiguous()  # what follows is faster
    return paint(images, choices[:, 3:])


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


# For images uint8 (N, C, H, W); choices are int64.
AUGMENTATIONS = {
    "none": Augmentation(draw_nothing, lambda images, _: images),
    "flip": Augmentation(_draw_flip, _flip),
    "crop_flip": Augmentation(_draw_crop_flip, _crop_flip),
    "crop_cutout_flip": Augmentation(_draw_crop_cutout_flip, _crop_cutout_flip),
}
