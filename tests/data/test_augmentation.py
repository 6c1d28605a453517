import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steadyspike.data.augmentation import AUGMENTATIONS, random_crop, random_flip
from steadyspike.data.counter_rng import CROP_COLUMN, CROP_ROW, FLIP, random_integers, splitmix

IMAGES = torch.randint(1, 256, (40, 3, 9, 7), generator=torch.Generator().manual_seed(0)).to(
    torch.uint8
)
INDICES = torch.randperm(10_000, generator=torch.Generator().manual_seed(1))[:40]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


def test_splitmix_is_the_published_one() -> None:
    # The first outputs of the authors' C program from the state 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    got = splitmix(torch.tensor(1234567), torch.arange(1, 4)).tolist()
    assert [word % 2**64 for word in got] == published


def test_numbers_are_the_ones_that_were_always_used() -> None:
    indices = torch.tensor([0, 1, 59_999])
    assert random_integers(0, 0, indices, FLIP, 1000).tolist() == [98, 812, 679]
    assert random_integers(7, 3, indices, CROP_ROW, 1000).tolist() == [591, 230, 35]


@pytest.mark.parametrize("below", [2, 9, 1000])
@pytest.mark.parametrize("draw", [FLIP, CROP_ROW, CROP_COLUMN])
def test_numbers_are_uniform(below: int, draw: int) -> None:
    counts = random_integers(3, 5, torch.arange(100_000), draw, below).bincount()
    assert len(counts) == below
    expected = 100_000 / below
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_squared - (below - 1)) < 5 * math.sqrt(2 * (below - 1))


def test_numbers_of_different_purpose_are_independent() -> None:
    indices = torch.arange(20_000)

    def number(seed: int = 0, epoch: int = 0, draw: int = 0, shift: int = 0) -> Tensor:
        return random_integers(seed, epoch, indices + shift, draw, 1000).double()

    base = number()
    for other in (number(seed=1), number(epoch=1), number(draw=1), number(shift=1)):
        assert abs(float(torch.corrcoef(torch.stack([base, other]))[0, 1])) < 5 / math.sqrt(20_000)
        assert (base == other).double().mean() < 0.003


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
@given(cuts=st.lists(st.integers(0, 40), max_size=6))
@settings(deadline=None, max_examples=25)
def test_no_split_into_batches_changes_a_sample(name: str, cuts: list[int]) -> None:
    augment = AUGMENTATIONS[name]
    whole = augment(IMAGES, 0, 1, INDICES)
    edges = [0, *sorted(cuts), 40]
    parts = [augment(IMAGES[a:b], 0, 1, INDICES[a:b]) for a, b in pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(len(cuts)))
    assert torch.equal(augment(IMAGES[order], 0, 1, INDICES[order]), whole[order])


def crop_one(image: Tensor, down: int, right: int) -> Tensor:
    """The image (C, H, W) read from (down, right) on, pixel by pixel; zeros outside."""
    out = torch.zeros_like(image)
    height, width = image.shape[-2:]
    for y in range(height):
        for x in range(width):
            if 0 <= y + down < height and 0 <= x + right < width:
                out[:, y, x] = image[:, y + down, x + right]
    return out


@pytest.mark.parametrize("padding", [0, 1, 4, 12])
def test_crop_is_exactly_the_loop_over_images(padding: int) -> None:
    got = random_crop(IMAGES, 2, 3, INDICES, padding)
    assert got.dtype == torch.uint8
    side = 2 * padding + 1
    downs, rights = (
        random_integers(2, 3, INDICES, draw, side) - padding for draw in (CROP_ROW, CROP_COLUMN)
    )
    for n, image in enumerate(IMAGES):
        assert torch.equal(got[n], crop_one(image, int(downs[n]), int(rights[n])))
    assert padding == 0 or (downs.min() < 0 < downs.max())


def test_flip_is_exactly_the_loop_over_images() -> None:
    got = random_flip(IMAGES, 2, 3, INDICES)
    flips = random_integers(2, 3, INDICES, FLIP, 2).tolist()
    assert 0 < sum(flips) < 40
    for image, out, flip in zip(IMAGES, got, flips, strict=True):
        assert torch.equal(out, torch.stack(image.unbind(-1)[:: -1 if flip else 1], -1))


def test_crop_flip_crops_by_four_and_then_flips() -> None:
    got = AUGMENTATIONS["crop_flip"](IMAGES, 5, 6, INDICES)
    assert torch.equal(got, random_flip(random_crop(IMAGES, 5, 6, INDICES, 4), 5, 6, INDICES))
    assert AUGMENTATIONS["none"](IMAGES, 5, 6, INDICES) is IMAGES


def test_events_keep_their_axes() -> None:
    clips = IMAGES[:12].view(4, 3, 3, 9, 7)  # (N, T, C, H, W): one shift for all T steps
    got = AUGMENTATIONS["crop_flip"](clips, 0, 0, INDICES[:4])
    flat = AUGMENTATIONS["crop_flip"](clips.flatten(1, 2), 0, 0, INDICES[:4])
    assert torch.equal(got, flat.view_as(clips))


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_computes_the_same(device: str) -> None:
    for name, augment in AUGMENTATIONS.items():
        got = augment(IMAGES.to(device), 0, 1, INDICES)
        assert torch.equal(got.cpu(), augment(IMAGES, 0, 1, INDICES)), name
        assert got.device.type == device


def test_rows_columns_and_mirroring_are_drawn_independently() -> None:
    assert len({FLIP, CROP_ROW, CROP_COLUMN}) == 3
    dots = torch.zeros(18_000, 1, 3, 5, dtype=torch.uint8)
    dots[:, :, 1, 1] = 1  # left of the middle, so that mirroring shows
    moved = AUGMENTATIONS["flip"](dots, 0, 0, torch.arange(18_000))
    moved = random_crop(moved, 0, 0, torch.arange(18_000), 1)
    counts = moved.sum(0).flatten()  # 3 rows, 3 columns, twice; the middle column is met by both
    expected = torch.tensor([1000, 1000, 2000, 1000, 1000] * 3)
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()
