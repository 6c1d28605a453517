"""Cutout (DeVries and Taylor, arXiv:1708.04552) in the form the paper's CIFAR networks saw.

The released code takes it from torchtoolbox 0.1.8, whose rectangle has a random area and aspect
and always lies inside the image, so no draw is ever repeated. Its colour is one number from 0 to
255 that Pillow's ``paste`` reads as packed channels: the first channel gets it, the others 0. So
the rectangles are shades of red, and they are here.
"""

import torch
from torch import Tensor

from steadyspike.data.counter_rng import (
    CUTOUT,
    CUTOUT_AREA,
    CUTOUT_ASPECT,
    CUTOUT_COLOUR,
    CUTOUT_COLUMN,
    CUTOUT_ROW,
    random_integers,
    random_reals,
)

AREA = (0.02, 0.4)  # of the image's
ASPECT = (0.4, 2.5)  # height / width


def random_cutout(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Paints one rectangle over half of the images, uint8 (N, ..., C, H, W).

    The area is uniform in 0.02..0.4 of the image's, height / width in 0.4..2.5, both sides
    rounded down; the place is uniform over those inside the image.
    """
    height, width = images.shape[-2:]
    device = images.device
    indices = indices.to(device)

    def real(draw: int, low: float, high: float) -> Tensor:
        return random_reals(seed, epoch, indices, draw, low, high)

    def integer(draw: int, below: int | Tensor) -> Tensor:
        return random_integers(seed, epoch, indices, draw, below)

    area = real(CUTOUT_AREA, *AREA) * (height * width)
    aspect = real(CUTOUT_ASPECT, *ASPECT)
    # The clamp is for images far from square, which the original refuses.
    tall = (area * aspect).sqrt().long().clamp(max=height)  # (N,)
    wide = (area / aspect).sqrt().long().clamp(max=width)
    top = integer(CUTOUT_ROW, height + 1 - tall)
    left = integer(CUTOUT_COLUMN, width + 1 - wide)
    tall *= integer(CUTOUT, 2)  # the other half gets a rectangle of no height

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
