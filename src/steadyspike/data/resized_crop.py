"""ImageNet's crops: a random part of the image for training, the middle of it for testing.

The sizes are those of torchvision's RandomResizedCrop(224), Resize(256) and CenterCrop(224), to
the pixel and, through Pillow, to the bit.
"""

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from steadyspike.data.counter_rng import RESIZED_CROP, random_reals

SIDE = 224
SHORT_SIDE = 256  # of the whole image, of which the test crop is the middle
AREA = (0.08, 1.0)  # of the image's
ASPECT = (3 / 4, 4 / 3)  # width / height
ATTEMPTS, NUMBERS = 10, 4  # a part that does not fit is drawn again: area, aspect, top, left

Attempts = Sequence[Sequence[float]]


def crop_numbers(seed: int, epoch: int, indices: Tensor) -> Tensor:
    """What `random_box` needs for each sample's index (N,): float64 (N, 10, 4) in 0..1."""
    draws = range(RESIZED_CROP, RESIZED_CROP + ATTEMPTS * NUMBERS)
    reals = [random_reals(seed, epoch, indices, draw) for draw in draws]
    return torch.stack(reals, -1).view(-1, ATTEMPTS, NUMBERS)


def random_box(width: int, height: int, attempts: Attempts) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a part of an image, in pixels.

    Its area is uniform in 0.08..1 of the image's, the logarithm of its aspect in that of 3/4..4/3,
    its place over those inside. Where no attempt fits: the largest middle part of such an aspect.
    """
    low, high = (math.log(aspect) for aspect in ASPECT)
    for area, aspect, top, left in attempts:
        pixels = width * height * (AREA[0] + (AREA[1] - AREA[0]) * area)
        ratio = math.exp(low + (high - low) * aspect)
        wide, tall = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            return _box(int(left * (width - wide + 1)), int(top * (height - tall + 1)), wide, tall)
    wide, tall = width, height
    if width / height < ASPECT[0]:
        tall = round(width / ASPECT[0])
    elif width / height > ASPECT[1]:
        wide = round(height * ASPECT[1])
    return _box((width - wide) // 2, (height - tall) // 2, wide, tall)


def _box(left: int, top: int, wide: int, tall: int) -> tuple[int, int, int, int]:
    return left, top, left + wide, top + tall


def random_resized_crop(image: Image.Image, attempts: Attempts) -> Image.Image:
    """A random part of an image, brought to 224x224."""
    part = image.crop(random_box(image.width, image.height, attempts))
    return part.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def middle_crop(image: Image.Image) -> Image.Image:
    """The middle 224x224 of an image whose shorter side is brought to 256."""
    short = min(image.size)
    width, height = (int(SHORT_SIDE * side / short) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (round((side - SIDE) / 2) for side in image.size)
    return image.crop(_box(left, top, SIDE, SIDE))
