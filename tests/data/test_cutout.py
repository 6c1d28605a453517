import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from steadyspike.data.augmentation import AUGMENTATIONS
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
    random_integers,
    random_reals,
)
from steadyspike.data.cutout import random_cutout

COUNT = 300
IMAGES = torch.randint(0, 256, (COUNT, 3, 32, 32), generator=torch.Generator().manual_seed(0))
IMAGES = IMAGES.to(torch.uint8)
INDICES = torch.randperm(50_000, generator=torch.Generator().manual_seed(1))[:COUNT]
SEED, EPOCH = 5, 17


def rectangle(index: Tensor) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom that the draws of one image mean."""

    def real(draw: int) -> float:
        return float(random_reals(SEED, EPOCH, index, draw))

    if not int(random_integers(SEED, EPOCH, index, CUTOUT, 2)):
        return None
    area = (0.02 + 0.38 * real(CUTOUT_AREA)) * 32 * 32
    aspect = 0.4 + 2.1 * real(CUTOUT_ASPECT)
    wide, tall = int(math.sqrt(area / aspect)), int(math.sqrt(area * aspect))
    left = int(random_integers(SEED, EPOCH, index, CUTOUT_COLUMN, 33 - wide))
    top = int(random_integers(SEED, EPOCH, index, CUTOUT_ROW, 33 - tall))
    return left, top, left + wide, top + tall


def augment_one(image: Tensor, index: Tensor) -> Tensor:
    """One image by Pillow, step by step as the released code goes."""
    down, right = (int(random_integers(SEED, EPOCH, index, d, 9)) for d in (CROP_ROW, CROP_COLUMN))
    padded = Image.new("RGB", (40, 40))
    padded.paste(Image.fromarray(image.permute(1, 2, 0).numpy()), (4, 4))
    picture = padded.crop((right, down, right + 32, down + 32))
    box = rectangle(index)
    if box is not None:
        picture.paste(int(random_integers(SEED, EPOCH, index, CUTOUT_COLOUR, 256)), box)
    if int(random_integers(SEED, EPOCH, index, FLIP, 2)):
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def test_cifar_is_exactly_the_loop_over_pillow_images() -> None:
    got = AUGMENTATIONS["crop_cutout_flip"](IMAGES, SEED, EPOCH, INDICES)
    assert got.dtype == torch.uint8
    for n in range(COUNT):
        assert torch.equal(got[n], augment_one(IMAGES[n], INDICES[n])), n


def test_the_input_is_left_as_it_was() -> None:
    before = IMAGES.clone()
    AUGMENTATIONS["crop_cutout_flip"](IMAGES, SEED, EPOCH, INDICES)
    assert torch.equal(IMAGES, before)


def test_rectangles_are_as_large_and_as_frequent_as_promised() -> None:
    grey = torch.full((1,), 9, dtype=torch.uint8).expand(20_000, 3, 32, 32)
    painted = (random_cutout(grey, 0, 0, torch.arange(20_000)) != 9).any(1)  # (N, H, W)
    tall = painted.any(2).sum(1)
    wide = painted.any(1).sum(1)
    assert torch.equal(painted.sum((1, 2)), tall * wide)  # one rectangle, nothing else
    hit = tall > 0
    assert hit.double().mean() == pytest.approx(0.5, abs=0.015)
    area = (tall * wide)[hit].double() / 1024
    assert area.max() <= 0.4
    assert area.min() > 0.01  # both sides are rounded down
    # The mean of a uniform area is 0.21; rounding down costs about one pixel a side.
    assert 0.17 < area.mean() < 0.21
    for side in (tall, wide):
        assert 28 <= side[hit].max() <= 32
        assert side[hit].min() >= int(math.sqrt(0.02 * 1024 / 2.5))
    middle = painted[hit].double().mean(0)
    assert torch.allclose(middle, middle.flip(0), atol=0.03)
    assert torch.allclose(middle, middle.flip(1), atol=0.03)


def test_the_colour_is_a_shade_of_red() -> None:
    black = torch.zeros(20_000, 3, 32, 32, dtype=torch.uint8)
    painted = random_cutout(black, 0, 0, torch.arange(20_000)).flatten(2).max(2).values  # (N, 3)
    assert not painted[:, 1:].any()
    counts = painted[:, 0].long().bincount(minlength=256)[1:].double()
    assert abs(float(((counts - 39) ** 2 / 39).sum()) - 255) < 6 * math.sqrt(2 * 255)


def test_a_whole_clip_gets_one_rectangle() -> None:
    clips = IMAGES[:40].view(10, 4, 3, 32, 32)
    got = random_cutout(clips, SEED, EPOCH, INDICES[:10])
    for step in range(4):
        alone = random_cutout(clips[:, step], SEED, EPOCH, INDICES[:10])
        assert torch.equal(got[:, step], alone)
